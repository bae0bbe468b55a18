"""The shape of a gpt-oss model: one frozen, validated `ModelConfig`.

In: a `config.json`, either of the released `original/` layout or of the Hugging Face layout.
Out: the same `ModelConfig` for both. A key that is missing, unknown, of the wrong type or that
describes another architecture is a `ConfigError` that names the key; nothing is guessed.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_oss.errors import ConfigError

_LARGEST_CONTEXT = 2**24  # beyond it float32, in which angles are computed, cannot tell positions apart
_FEWEST_TURNS, _MOST_TURNS = 1e-9, 1e9  # of a rotary pair within the initial context, where YaRN's ramp begins or ends
_LARGEST_ROPE_THETA = 1e18  # frequencies, and these times the scaling factor, must fit float32


@dataclass(frozen=True)
class ModelConfig:
    """Hyper-parameters of a gpt-oss model; the defaults are gpt-oss-120b's, as in its `original/config.json`.

    `sliding_window` counts the query's own position and applies to even layers; odd layers see everything.
    `rope_ntk_alpha` and `rope_ntk_beta` are YaRN's slow and fast rotation bounds (arXiv:2309.00071).
    """

    num_hidden_layers: int = 36
    num_experts: int = 128
    experts_per_token: int = 4
    vocab_size: int = 201088
    hidden_size: int = 2880
    intermediate_size: int = 2880
    swiglu_limit: float = 7.0
    head_dim: int = 64
    num_attention_heads: int = 64
    num_key_value_heads: int = 8
    sliding_window: int = 128
    initial_context_length: int = 4096
    rope_theta: float = 150000.0
    rope_scaling_factor: float = 32.0
    rope_ntk_alpha: float = 1.0
    rope_ntk_beta: float = 32.0
    rms_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, int):
                if not isinstance(value, int) or isinstance(value, bool):
                    raise ConfigError(f"{field.name} must be an integer, found {value!r}")
            else:
                # JSON writes 32.0 as 32; one type keeps equal configs equal in every later comparison.
                object.__setattr__(self, field.name, _finite_float(field.name, value))
            if value <= 0:
                raise ConfigError(f"{field.name} must be positive, found {value!r}")
        self._check_relations()

    def _check_relations(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.experts_per_token > self.num_experts:
            raise ConfigError(
                f"experts_per_token ({self.experts_per_token}) must not exceed num_experts ({self.num_experts})"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even for rotary embedding, found {self.head_dim}")
        for name in ("hidden_size", "intermediate_size"):
            if getattr(self, name) % 32:
                raise ConfigError(f"{name} must be a multiple of 32 (the MXFP4 block), found {getattr(self, name)}")
        if self.rope_scaling_factor < 1:
            raise ConfigError(f"rope_scaling_factor must be at least 1, found {self.rope_scaling_factor}")
        if not 1 < self.rope_theta <= _LARGEST_ROPE_THETA:
            raise ConfigError(
                f"rope_theta must be above 1 and at most {_LARGEST_ROPE_THETA:g}, found {self.rope_theta}"
            )
        if not _FEWEST_TURNS <= self.rope_ntk_alpha < self.rope_ntk_beta * (1 - 1e-6) <= _MOST_TURNS:
            raise ConfigError(
                f"rope_ntk_alpha ({self.rope_ntk_alpha}) must be below rope_ntk_beta ({self.rope_ntk_beta}), "
                f"both between {_FEWEST_TURNS:g} and {_MOST_TURNS:g}"
            )
        if self.initial_context_length > _LARGEST_CONTEXT / self.rope_scaling_factor:
            raise ConfigError(
                f"initial_context_length ({self.initial_context_length}) times rope_scaling_factor "
                f"({self.rope_scaling_factor}) must be at most {_LARGEST_CONTEXT} positions"
            )

    @property
    def context_length(self) -> int:
        """Positions the rotary embedding is made for: the initial context times YaRN's factor."""
        return int(self.initial_context_length * self.rope_scaling_factor)

    @property
    def query_groups(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused projection: all query heads, then all key heads, then all value heads."""
        return (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim

    def window(self, layer: int) -> int | None:
        """Keys that layer `layer` may see, its own position included; None means all of them."""
        return self.sliding_window if layer % 2 == 0 else None

    def to_dict(self) -> dict[str, Any]:
        """The `original/` layout; `rms_norm_eps` is left out where it has the value that layout implies."""
        result = dataclasses.asdict(self)
        if self.rms_norm_eps == 1e-5:
            del result["rms_norm_eps"]
        return result

    def to_hf_dict(self) -> dict[str, Any]:
        """The Hugging Face layout, as `transformers` reads it."""
        kinds = [
            "full_attention" if self.window(n) is None else "sliding_attention" for n in range(self.num_hidden_layers)
        ]
        same = {key: getattr(self, key) for key in _SAME_IN_HF}
        renamed = {hf_key: getattr(self, key) for hf_key, key in _RENAMED_IN_HF.items()}
        rope = {hf_key: getattr(self, key) for hf_key, key in _ROPE_IN_HF.items()}
        return {
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            **same,
            **renamed,
            "layer_types": kinds,
            "max_position_embeddings": self.context_length,
            "rope_theta": self.rope_theta,
            "rope_scaling": {"rope_type": "yarn", "truncate": False, **rope},
            "hidden_act": "silu",
            "attention_bias": True,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Read either layout. Raises `ConfigError` naming the key that is missing, unknown or unsupported."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"a model configuration is a JSON object, found {type(values).__name__}")
        if _looks_like_hf(values):
            config = cls(**_from_hf(values))
            _check_layer_types(values.get("layer_types"), config.num_hidden_layers)
            return config
        fields = {field.name for field in dataclasses.fields(cls)}
        _refuse_keys("unknown", sorted(set(values) - fields))
        _refuse_keys("missing", sorted(fields - set(values) - {"rms_norm_eps"}))
        return cls(**values)

    @classmethod
    def from_file(cls, path: str | Path) -> "ModelConfig":
        """Read a `config.json` of either layout; every `ConfigError` names the file."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: is not valid JSON ({error})") from error
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _finite_float(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # JSON has integers of any size
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{name} must be a finite number, found {value!r:.80}")
    return number


def _refuse_keys(what: str, keys: list[str]) -> None:
    if keys:
        raise ConfigError(f"{what} configuration key{'s' * (len(keys) > 1)}: {', '.join(keys)}")


# --- Hugging Face layout ---------------------------------------------------------------------------------------------

_SAME_IN_HF = (
    "num_hidden_layers",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "swiglu_limit",
    "head_dim",
    "num_attention_heads",
    "num_key_value_heads",
    "sliding_window",
    "rms_norm_eps",
)
_RENAMED_IN_HF = {"num_local_experts": "num_experts", "num_experts_per_tok": "experts_per_token"}
_ROPE_IN_HF = {
    "factor": "rope_scaling_factor",
    "beta_slow": "rope_ntk_alpha",
    "beta_fast": "rope_ntk_beta",
    "original_max_position_embeddings": "initial_context_length",
}

# Keys that change what the model computes and for which only one value is a gpt-oss model.
_REQUIRED_IF_PRESENT: dict[str, Callable[[Any], bool]] = {
    "model_type": lambda value: value == "gpt_oss",
    "architectures": lambda value: value is None or (isinstance(value, list) and "GptOssForCausalLM" in value),
    "hidden_act": lambda value: value == "silu",
    "attention_bias": lambda value: value is True,
    "tie_word_embeddings": lambda value: value is False,
    "swiglu_alpha": lambda value: value == 1.702,
    "is_decoder": lambda value: value in (True, False),
}

# Keys that say nothing about inference: training, generation defaults, bookkeeping of the library that wrote the file.
_IGNORED_IN_HF = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "attention_dropout",
        "attn_implementation",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "experts_implementation",
        "id2label",
        "initializer_range",
        "is_encoder_decoder",
        "label2id",
        "max_position_embeddings",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "pad_token_id",
        "problem_type",
        "quantization_config",
        "return_dict",
        "router_aux_loss_coef",
        "torch_dtype",
        "transformers_version",
        "unsloth_fixed",
        "use_cache",
    }
)


def _looks_like_hf(values: Mapping[str, Any]) -> bool:
    return any(
        key in values for key in ("model_type", "architectures", "num_local_experts", "rope_parameters", "layer_types")
    )


def _from_hf(values: Mapping[str, Any]) -> dict[str, Any]:
    for key, accepts in _REQUIRED_IF_PRESENT.items():
        if key in values and not accepts(values[key]):
            raise ConfigError(f"{key} = {values[key]!r} is not a gpt-oss model")
    rope_key = "rope_parameters" if values.get("rope_parameters") else "rope_scaling"
    rope = values.get(rope_key)
    if not isinstance(rope, Mapping):
        _refuse_keys("missing", ["rope_scaling (or rope_parameters)"])
        raise AssertionError("unreachable")
    # The released files repeat two values under their original names.
    aliases = {"experts_per_token": "num_experts_per_tok", "initial_context_length": None}
    known = (
        {*_SAME_IN_HF, *_RENAMED_IN_HF, *_REQUIRED_IF_PRESENT, *aliases}
        | {"rope_theta", "rope_scaling", "rope_parameters", "layer_types"}
        | _IGNORED_IN_HF
    )
    _refuse_keys("unknown", sorted(set(values) - known))
    _refuse_keys("missing", [key for key in (*_SAME_IN_HF, *_RENAMED_IN_HF) if key not in values])
    result = {key: values[key] for key in _SAME_IN_HF}
    result.update({key: values[hf_key] for hf_key, key in _RENAMED_IN_HF.items()})
    result.update(_rope_from_hf(rope_key, rope, values))
    for key in ("experts_per_token", "initial_context_length"):
        if key in values and values[key] != result[key]:
            raise ConfigError(f"{key} = {values[key]!r} contradicts {result[key]!r} elsewhere in the file")
    return result


def _rope_from_hf(rope_key: str, rope: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        *_ROPE_IN_HF,
        "rope_type",
        "type",
        "truncate",
        "rope_theta",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
    }
    _refuse_keys("unknown", sorted(f"{rope_key}.{key}" for key in set(rope) - known))
    _refuse_keys("missing", sorted(f"{rope_key}.{key}" for key in set(_ROPE_IN_HF) - set(rope)))
    if rope.get("rope_type", rope.get("type")) != "yarn":
        raise ConfigError(f"{rope_key}.rope_type must be 'yarn', found {rope.get('rope_type', rope.get('type'))!r}")
    if rope.get("truncate", True):
        # transformers rounds the YaRN bounds unless told otherwise; the gpt-oss models need them fractional.
        raise ConfigError(f"{rope_key}.truncate must be false: the YaRN bounds of gpt-oss are fractional")
    for key in ("attention_factor", "mscale", "mscale_all_dim"):
        if rope.get(key) is not None:
            raise ConfigError(
                f"{rope_key}.{key} = {rope[key]!r} is not supported; gpt-oss derives the concentration from the factor"
            )
    theta = rope.get("rope_theta", values.get("rope_theta"))
    if theta is None:
        _refuse_keys("missing", ["rope_theta"])
    return {"rope_theta": theta} | {key: rope[hf_key] for hf_key, key in _ROPE_IN_HF.items()}


def _check_layer_types(kinds: Any, layers: int) -> None:
    if kinds is None:
        return
    alternating = ("sliding_attention", "full_attention")
    named = isinstance(kinds, list) and len(kinds) == layers
    if not named or any(kind != alternating[n % 2] for n, kind in enumerate(kinds)):
        raise ConfigError("layer_types must alternate sliding_attention, full_attention and name every layer once")
