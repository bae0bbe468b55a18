"""Every failure a user can cause, as one tree. Each message is one sentence: expected, found, what to do.

    GptOssError
    ├── ConfigError              a config.json that does not describe a gpt-oss model
    ├── CheckpointError          a checkpoint folder or file that cannot be used (names file and tensor)
    ├── CacheError               the user's cache folder cannot be written, read or cleared
    ├── VocabularyError          the tokenizer's table is missing or damaged
    ├── BackendError             a backend cannot run here
    │   ├── BackendUnavailable   not built, no such device, library too old or missing
    │   └── OutOfMemory          the weights or the context do not fit (needed and free bytes)
    ├── RequestError             a request that cannot be run, refused before any work
    │   └── ContextOverflow      the prompt is longer than the context
    ├── QueueFull                too many requests wait already
    ├── GenerationError          inference failed while a request was running
    ├── MissingExtra             an optional dependency is not installed (names the pip command)
    └── ToolError                a tool could not do its work
        └── DiffError            a patch that cannot be read or applied; no file was changed
"""


class GptOssError(Exception):
    """Root of all errors that gpt_oss raises on purpose."""


class ConfigError(GptOssError, ValueError):
    """A config.json that does not describe a gpt-oss model; the message names the key."""


class CheckpointError(GptOssError):
    """A checkpoint that cannot be used; the message names the file and the tensor."""


class CacheError(GptOssError):
    """The user's cache folder cannot be written, read or cleared; the message names GPT_OSS_CACHE."""


class VocabularyError(GptOssError):
    """The tokenizer's table is missing or does not have the expected SHA-256."""


class BackendError(GptOssError):
    """A backend cannot run here."""


class BackendUnavailable(BackendError):
    """The backend is not built, its device is absent or its library is too old or missing."""


class OutOfMemory(BackendError):
    """Weights or context do not fit; the message states needed and free bytes."""


class RequestError(GptOssError, ValueError):
    """A request that cannot be run; raised before any work is done."""


class ContextOverflow(RequestError):
    """The prompt does not fit the context."""


class QueueFull(GptOssError):
    """Too many requests wait already; the same request may succeed later."""


class GenerationError(GptOssError, RuntimeError):
    """Inference failed while a request was running."""


class MissingExtra(GptOssError, ImportError):
    """An optional dependency is missing; the message names the pip command that installs it."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"{package} is not installed; run: pip install 'gpt-oss[{extra}]'")


class ToolError(GptOssError):
    """A tool could not do its work; the message is fit to be shown to the model."""


class DiffError(ToolError, ValueError):
    """A patch that cannot be read or applied; the message says where, and no file was changed."""
