"""Run by torchrun in test_parallel.py: rank 0 generates greedily and prints the ids as JSON.

usage: parallel_job.py CHECKPOINT [RANK_THAT_FAILS]
"""

import json
import sys

import torch

from gpt_oss.torch.model import TokenGenerator

PROMPTS = [[1, 2, 3], [7] * 140, list(range(60, 90))]


def main():
    torch.set_num_threads(1)
    generator = TokenGenerator(sys.argv[1], "cpu", dtype=torch.float32, context_length=256, slots=2)
    rank = generator.backend.model.parallel.rank
    if len(sys.argv) > 2 and rank == int(sys.argv[2]):

        def fail(*_):
            raise RuntimeError("the disk under rank caught fire")

        generator.backend._forward = fail
    if not generator.leads:
        generator.follow()
        return
    with generator:
        print(json.dumps([list(generator.generate(p, temperature=0.0, max_tokens=12)) for p in PROMPTS]))


main()
