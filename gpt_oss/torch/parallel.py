"""Tensor parallelism: which part of each tensor a rank holds, and the two collectives that join the parts.

A `Parallel()` of one rank is the identity everywhere, so the model has no second code path. Ranks come from
`torchrun` (RANK, WORLD_SIZE, LOCAL_RANK); NCCL joins GPUs, gloo joins CPUs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from gpt_oss.config import ModelConfig
from gpt_oss.errors import BackendUnavailable, ConfigError
from gpt_oss.torchrun import world_size


@dataclass(frozen=True)
class Parallel:
    """Rank `rank` of `world` ranks that hold one model together."""

    rank: int = 0
    world: int = 1

    def share(self, size: int) -> int:
        """This rank's part of an axis that is cut evenly. Raises `ConfigError` if it cannot be."""
        if size % self.world:
            raise ConfigError(f"an axis of {size} cannot be cut evenly for {self.world} ranks")
        return size // self.world

    def rows(self, size: int) -> range:
        """This rank's rows of the unembedding; the last rank's may be fewer."""
        step = -(-size // self.world)
        return range(min(size, self.rank * step), min(size, (self.rank + 1) * step))

    def heads(self, config: ModelConfig) -> tuple[int, int]:
        """Query and key-value heads of this rank; with more ranks than key-value heads these are held twice."""
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        if heads % self.world or (kv_heads % self.world and self.world % kv_heads):
            raise ConfigError(f"{heads} query and {kv_heads} key-value heads cannot be cut for {self.world} ranks")
        return heads // self.world, max(1, kv_heads // self.world)

    def first_kv_head(self, config: ModelConfig) -> int:
        """The key-value head of this rank's first query head."""
        return self.rank * config.num_key_value_heads // self.world

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over ranks, added up in fp32 so that it depends on the cut as little as possible."""
        if self.world == 1:
            return x
        total = x.float()
        distributed.all_reduce(total)
        return total.to(x.dtype)

    def all_gather(self, x: Tensor, size: int) -> Tensor:
        """Join parts along the last axis, cut by `rows(size)`, to the full [..., size] on every rank."""
        if self.world == 1:
            return x
        step = -(-size // self.world)
        padded = torch.nn.functional.pad(x, (0, step - x.shape[-1]))
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded.contiguous())
        return torch.cat(parts, dim=-1)[..., :size]


def join_ranks(device: torch.device) -> Parallel:
    """Join the process group that `torchrun` describes (once) and return this process's place in it.

    Raises BackendUnavailable if that cannot be done, RequestError if the environment makes no sense.
    """
    world = world_size()
    if world == 1:
        return Parallel()
    if not distributed.is_available():
        raise BackendUnavailable("this build of torch has no distributed support; tensor parallelism needs it")
    if not distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except ValueError as error:  # a variable is missing or is no number
            raise BackendUnavailable(
                f"WORLD_SIZE is {world} but torchrun did not start this process; start it with torchrun or unset that"
            ) from error
        except distributed.DistError as error:
            reason = str(error).partition("\n")[0]
            raise BackendUnavailable(f"the {world} processes of torchrun cannot find each other ({reason})") from error
    return Parallel(distributed.get_rank(), distributed.get_world_size())


def leave_ranks() -> None:
    """Undo `join_ranks`; a process that ends while its collectives' threads run is aborted by the C++ runtime."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
