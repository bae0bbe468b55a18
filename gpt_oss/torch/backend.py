"""The torch model behind the engine's seam: prefill, decode and truncate on `slots` cached sequences.

Under `torchrun` rank 0 alone has an engine. Before each step it tells the other ranks the verb and its arguments;
they sit in `TorchBackend.follow` and take the same step, so that the collectives inside the model meet.
"""

import datetime
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from gpt_oss.errors import BackendError, BackendUnavailable
from gpt_oss.token_generator import EngineTokenGenerator
from gpt_oss.torch.parallel import join_ranks, leave_ranks
from gpt_oss.torchrun import local_rank

if TYPE_CHECKING:
    from gpt_oss.torch.model import Transformer
    from gpt_oss.torch.weights import Weights

logger = logging.getLogger(__name__)

# A server may be idle for weeks between two steps; a rank that dies is noticed by torchrun, not by this limit.
_IDLE_LIMIT = datetime.timedelta(days=365)


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """The device asked for, or the machine's best: CUDA (of this local rank), then MPS, then the CPU.

    Raises `BackendUnavailable` for a device that torch does not know or the machine does not have.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen).tolist()  # "meta" has tensors, but no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise BackendUnavailable(f"device {str(device)!r} cannot be used here ({reason}); try --device cpu") from error
    return chosen


class TorchBackend:
    """See `gpt_oss.engine.Backend`. Logits are fp32 on the model's device."""

    def __init__(self, model: "Transformer", slots: int = 1, context_length: int | None = None):
        self.model = model
        self.cache = model.new_cache(slots, context_length)
        self.slots, self.vocab_size = slots, model.config.vocab_size
        self.context_length = self.cache.context_length
        self._group = None
        self._out_of_step = False
        if model.parallel.world > 1:
            self._group = distributed.new_group(backend="gloo", timeout=_IDLE_LIMIT)

    def prefill(self, slot: int, tokens: Sequence[int]) -> Tensor:
        """Append tokens to one slot; logits after the last, [vocab]."""
        return self._everywhere("_forward", [slot], [list(tokens)])[0]

    def decode(self, slots: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Append one token to each named slot in one step; logits [len(slots), vocab]."""
        return self._everywhere("_forward", list(slots), [[token] for token in tokens])

    def truncate(self, slot: int, length: int) -> int:
        """Forget all but the first `length` tokens of a slot; always exact here."""
        return self._everywhere("_truncate", slot, length)

    def close(self) -> None:
        """Let the other ranks leave `follow`. After a failed step they wait inside it; torchrun ends them."""
        if self._group is not None and not self._out_of_step:
            self._tell(None)
            leave_ranks()
        self._group = None

    def follow(self) -> None:
        """What every rank but 0 does: take the steps that rank 0 announces, until it closes.

        An exception ends the process with its message; torchrun then ends the other ranks.
        """
        while True:
            told: list[Any] = [None]
            distributed.broadcast_object_list(told, src=0, group=self._group)
            if told[0] is None:
                leave_ranks()
                return
            verb, arguments = told[0]
            getattr(self, verb)(*arguments)

    def _everywhere(self, verb: str, *arguments: Any) -> Any:
        if self._out_of_step:
            raise BackendError("an earlier step failed on one rank, so the ranks are out of step; start the job again")
        self._tell((verb, arguments))
        self._out_of_step = self._group is not None
        result = getattr(self, verb)(*arguments)
        self._out_of_step = False
        return result

    def _tell(self, message: tuple[str, Sequence[Any]] | None) -> None:
        if self._group is not None:
            distributed.broadcast_object_list([message], src=0, group=self._group)

    @torch.inference_mode()
    def _forward(self, slots: list[int], tokens: list[list[int]]) -> Tensor:
        rows = torch.tensor(tokens, device=self.model.device)
        return self.model(rows, self.cache, slots, last_only=True)

    def _truncate(self, slot: int, length: int) -> int:
        self.cache.lengths[slot] = min(length, self.cache.lengths[slot])
        return self.cache.lengths[slot]


class TokenGenerator(EngineTokenGenerator):
    """The torch backend with the engine around it.

    checkpoint: a folder of either layout. context_length: tokens per slot (default: the model's). slots: requests
    that run at the same time. weights: see `Transformer.from_checkpoint`. Under torchrun every rank constructs it;
    ranks other than 0 then call `follow()`.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: torch.device | str | None = None,
        *,
        context_length: int | None = None,
        slots: int = 1,
        dtype: torch.dtype = torch.bfloat16,
        weights: "Weights" = "auto",
        **engine_options: Any,
    ):
        from gpt_oss.torch.model import Transformer  # which re-exports this class

        chosen = choose_device(device)
        logger.info("device %s, %s", chosen, str(dtype).removeprefix("torch."))
        model = Transformer.from_checkpoint(checkpoint, chosen, dtype, join_ranks(chosen), weights)
        self.backend = TorchBackend(model, slots, context_length)
        self.leads = model.parallel.rank == 0
        super().__init__(self.backend, **engine_options)

    def follow(self) -> None:
        """Serve rank 0 until it closes; for ranks whose `leads` is false."""
        self.backend.follow()

    def close(self) -> None:
        """Stop the engine and, under torchrun, the other ranks."""
        super().close()
        if self.leads:
            self.backend.close()
