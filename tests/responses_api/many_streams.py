"""So many clients at once, as a program: `python -m tests.responses_api.many_streams BASE_URL NUMBER`.

Each streams one answer of 12 tokens from a model that does not end sooner. Prints how many ended as they should.
The program yields the processor to the server it loads.
"""

import asyncio
import os
import sys

import httpx


async def one(client: httpx.AsyncClient, url: str, number: int) -> bool:
    body = {"input": f"Question {number}.", "stream": True, "max_output_tokens": 12, "temperature": 0}
    reply = await client.post(url, json=body)
    return b"event: response.incomplete" in reply.content and reply.content.endswith(b"data: [DONE]\n\n")


async def main(base: str, number: int) -> None:
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=number)) as client:
        ended = await asyncio.gather(*(one(client, f"{base}/responses", n) for n in range(number)))
    sys.stdout.write(f"{sum(ended)}\n")


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
