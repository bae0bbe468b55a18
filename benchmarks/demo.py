"""The embedded model as a newcomer meets it: seconds from process start to first token, tokens per second."""

import json
import statistics
import subprocess
import sys
import time

from benchmarks.measure import record, save

COMMAND = [sys.executable, "-m", "gpt_oss.generate", "--prompt", "What is the capital of France?"]


def main() -> int:
    first, whole = [], []
    for number in range(6):
        start = time.perf_counter()
        process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.read(1)
        shown = time.perf_counter() - start
        process.communicate()
        if number:  # the first run may unpack the model
            first.append(shown)
            whole.append(time.perf_counter() - start)
    result = {
        "machine": record(),
        "start_to_first_text_s": statistics.median(first),
        "start_to_end_s": statistics.median(whole),
        "tokens_per_s": _tokens_per_second(),
    }
    print(json.dumps(result, indent=2))
    save("demo", result)
    return 0


def _tokens_per_second(count: int = 300) -> float:
    from gpt_oss.backends import load_generator

    generator = load_generator("torch")
    assert generator is not None
    with generator:
        ids = generator.stream([200006, 1428, 200008, 13225, 200007], temperature=1.0, seed=1, max_tokens=count)
        next(ids)
        start = time.perf_counter()
        produced = sum(1 for _ in ids)
        return produced / (time.perf_counter() - start)


if __name__ == "__main__":
    raise SystemExit(main())
