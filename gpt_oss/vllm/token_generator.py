"""vLLM behind `TokenGenerator`: its scheduler, its cache, its kernels and its sampler, in this process.

In: a checkpoint in either layout (see `engines.hugging_face`). Out: tokens; vLLM sees ids alone and loads no tokenizer.
One thread of ours drives its engine: it hands over requests that came meanwhile, takes a step, deals out the tokens. So
callers from any thread share one batch. Masks (`AllowedTokens`) are asked for inside vLLM's sampler, row by row.
"""

import functools
import itertools
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.executor import Executor
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from gpt_oss.engine import TaskGeneration
from gpt_oss.engines.hugging_face import hugging_face_folder
from gpt_oss.errors import BackendUnavailable, CheckpointError, GenerationError
from gpt_oss.scheduler import Event, Task, failure
from gpt_oss.token_generator import MAX_TOP_LOGPROBS, FinishReason, Generation, Request, Token
from gpt_oss.token_generator import TokenGenerator as Base

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 8192
CPU_CACHE_BYTES = 1 << 30
_SEEDS = (1 << 63) - 1  # vLLM's seeds are not negative
# Read by vLLM when it is configured; the engine then stays in the process that made it.
_IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


class TokenGenerator(Base):
    """checkpoint: a folder. context_length: tokens of prompt and answer. slots: requests computed together.

    options: further fields of vLLM's `EngineArgs`. With tensor_parallel_size above 1 vLLM samples in processes of its
    own, which masks do not reach. Raises CheckpointError, or BackendUnavailable where vLLM cannot run here.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        tensor_parallel_size: int = 1,
        context_length: int | None = None,
        slots: int = 8,
        dtype: torch.dtype = torch.bfloat16,
        **options: Any,
    ):
        self.honours_allowed_tokens = tensor_parallel_size == 1
        on_cpu = not torch.cuda.is_available()
        given: dict[str, Any] = {
            # vLLM's MXFP4 kernel for CPUs exists for few of them.
            "model": str(hugging_face_folder(checkpoint, dense=on_cpu)),
            "skip_tokenizer_init": True,
            "max_model_len": context_length or DEFAULT_CONTEXT,
            "max_num_seqs": slots,
            "max_logprobs": MAX_TOP_LOGPROBS,
            "dtype": dtype,
            "tensor_parallel_size": tensor_parallel_size,
            "async_scheduling": False,  # a mask has to see every token before the next is sampled
            "disable_log_stats": True,
        }
        if tensor_parallel_size == 1:
            given |= {"distributed_executor_backend": "uni", "logits_processors": [AllowedTokensProcessor]}
        if on_cpu:
            given["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
        self._driver = _Driver(_load({**given, **options}, checkpoint))
        config = self._driver.engine.model_config
        self.context_length, self.vocab_size = config.max_model_len, config.get_vocab_size()

    def start(self, request: Request) -> Generation:
        """Queue the request."""
        task = VllmTask(request, self.context_length)
        if len(request.prompt_tokens) >= self.context_length:
            task.end("context")  # the prompt fits, an answer does not
        else:
            self._driver.submit(task)
        return TaskGeneration(task)

    def close(self) -> None:
        """Stop the engine; requests that run end as cancelled."""
        self._driver.close()


def _load(options: dict[str, Any], checkpoint: str | Path) -> LLMEngine:
    before = {name: os.environ.get(name) for name in _IN_PROCESS}
    os.environ.update(_IN_PROCESS)
    try:
        config = EngineArgs(**options).create_engine_config()
        return LLMEngine(config, Executor.get_class(config), log_stats=False, multiprocess_mode=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: vLLM cannot load it ({error})") from error
    except RuntimeError as error:
        raise BackendUnavailable(f"vLLM cannot run here ({error})") from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class VllmTask(Task):
    """A request on its way. `mask_error`: what its mask raised, told by the sampler to the driver."""

    def __init__(self, request: Request, context_length: int):
        super().__init__(request, seed=0)  # vLLM seeds by itself
        self.context_length = context_length
        self.mask_error: BaseException | None = None

    def mask(self, generated: Sequence[int], logits_V: Tensor) -> Tensor:
        """The logits with -inf where the request's mask forbids; as they are where it failed."""
        allowed = self.request.allowed_tokens
        if allowed is None or self.mask_error is not None:
            return logits_V
        try:
            mask = allowed(tuple(generated))
            if mask is None:
                return logits_V
            if not mask.any():
                raise ValueError("the mask allows no token")
            return logits_V.masked_fill(~torch.as_tensor(mask).to(logits_V.device), float("-inf"))
        except (Exception, SystemExit) as error:  # one request's mask must not end the batch
            self.mask_error = error
            return logits_V


class AllowedTokensProcessor(AdapterLogitsProcessor):
    """Where vLLM asks for masks: the task travels in its request's `extra_args`."""

    def is_argmax_invariant(self) -> bool:
        """A mask can change the most probable token."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Any:
        """What to call with the ids generated so far and a row of logits."""
        task = (params.extra_args or {}).get("task")
        return None if task is None else functools.partial(_masked, task)


def _masked(task: VllmTask, generated: list[int], logits_V: Tensor) -> Tensor:
    return task.mask(generated, logits_V)


def sampling_params(task: VllmTask) -> SamplingParams:
    """vLLM's words for a request."""
    request = task.request
    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=None if request.seed is None else request.seed & _SEEDS,
        max_tokens=request.max_tokens or None,
        stop_token_ids=sorted(request.stop_tokens),
        ignore_eos=True,  # only what the request names ends it
        logprobs=request.top_logprobs if request.logprobs else None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={"task": task} if request.allowed_tokens is not None else None,
        skip_clone=True,  # a mask is no data
    )


class _Driver:
    """Runs the engine in a thread of its own, asleep while there is nothing to do."""

    def __init__(self, engine: LLMEngine):
        self.engine = engine
        self._lock = threading.Condition()  # guards the three below
        self._arrived: list[VllmTask] = []
        self._closed = False
        self._thread: threading.Thread | None = None
        self._running: dict[str, VllmTask] = {}  # by the name vLLM was given
        self._names = map(str, itertools.count())

    def submit(self, task: VllmTask) -> None:
        """Hand over a request. Raises GenerationError once the engine is closed."""
        with self._lock:
            if self._closed:
                raise GenerationError("the engine is closed; load the model again")
            self._arrived.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="gpt-oss-vllm", daemon=True)
                self._thread.start()
            self._lock.notify()

    def close(self) -> None:
        """End all requests and free the model."""
        with self._lock:
            self._closed = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join()
        self.engine.engine_core.shutdown()

    # The thread from here on.

    def _work(self) -> None:
        try:
            while self._wait_for_work():
                self._take_over()
                self._abort([name for name, task in self._running.items() if task.cancelled])
                for output in self.engine.step() if self._running else ():
                    self._deal(output)
            self._end_all("cancelled")
        except Exception as error:  # after which vLLM's engine cannot be used
            logger.warning("vLLM failed", exc_info=True)
            self._end_all("error", failure("vLLM took a step", error))

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False once the engine is closed."""
        with self._lock:
            while not (self._arrived or self._running or self._closed):
                self._lock.wait()
            return not self._closed

    def _take_over(self) -> None:
        """Give vLLM the requests that arrived."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
        for task in arrived:
            name = next(self._names)
            prompt: Any = {"prompt_token_ids": task.prompt}
            try:
                self.engine.add_request(name, prompt, sampling_params(task))
            except (ValueError, TypeError) as error:
                task.end("error", failure("vLLM was given the request", error))
            else:
                self._running[name] = task

    def _abort(self, names: Sequence[str]) -> None:
        """Take requests back from vLLM; their readers were told already."""
        if names:
            self.engine.abort_request(list(names))
        for name in names:
            del self._running[name]

    def _deal(self, output: Any) -> None:
        """Hand out what a step gave to one request."""
        task, given = self._running.get(output.request_id), output.outputs[0]
        if task is None:
            return
        task.cached_tokens = output.num_cached_tokens or 0
        ended = False
        if task.mask_error is not None:
            task.end("error", failure("asking which tokens are allowed", task.mask_error))
            ended = True
        for position, id in enumerate([] if ended else given.token_ids):
            task.generated.append(id)
            reason = task.request.finish_reason(id, len(task.generated), task.context_length)
            task.events.put(Event(_token(task, id, given.logprobs, position), reason))
            ended = ended or reason is not None
        if output.finished:
            del self._running[output.request_id]
            if not ended:
                task.end("error", GenerationError(f"vLLM ended the request ({given.finish_reason})"))
        elif ended:
            self._abort([output.request_id])

    def _end_all(self, reason: FinishReason, error: GenerationError | None = None) -> None:
        with self._lock:
            self._closed = True
            ending, self._arrived = [*self._running.values(), *self._arrived], []
        self._running.clear()
        for task in ending:
            task.end(reason, error)


def _token(task: VllmTask, id: int, logprobs: Any, position: int) -> Token:
    """The id, with log probabilities where the request wants them."""
    if not task.request.logprobs:
        return Token(id)
    found = logprobs[position]
    wanted = task.request.top_logprobs
    best = sorted((item for item in found.items() if item[1].rank <= wanted), key=lambda item: item[1].rank)
    return Token(id, found[id].logprob, tuple((other, entry.logprob) for other, entry in best))
