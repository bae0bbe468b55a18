"""Both config layouts, and an error that names the key for everything else."""

import dataclasses
import json

import pytest

from gpt_oss.config import ModelConfig
from gpt_oss.errors import ConfigError

# The released original/config.json of gpt-oss-20b.
ORIGINAL_20B = {
    "num_hidden_layers": 24, "num_experts": 32, "experts_per_token": 4, "vocab_size": 201088, "hidden_size": 2880,
    "intermediate_size": 2880, "swiglu_limit": 7.0, "head_dim": 64, "num_attention_heads": 64,
    "num_key_value_heads": 8, "sliding_window": 128, "initial_context_length": 4096, "rope_theta": 150000,
    "rope_scaling_factor": 32.0, "rope_ntk_alpha": 1, "rope_ntk_beta": 32,
}  # fmt: skip

# The released config.json of gpt-oss-20b's repository root, in its own spelling.
HUGGING_FACE_20B = {
    "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0, "eos_token_id": 200002,
    "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880, "initial_context_length": 4096,
    "initializer_range": 0.02, "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12, "max_position_embeddings": 131072,
    "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24,
    "num_key_value_heads": 8, "num_local_experts": 32, "output_router_logits": False, "pad_token_id": 199999,
    "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "mxfp4"}, "rms_norm_eps": 1e-05,
    "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                     "rope_type": "yarn", "truncate": False},
    "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
    "tie_word_embeddings": False, "transformers_version": "4.55.0.dev0", "use_cache": True, "vocab_size": 201088,
}  # fmt: skip


def test_both_layouts_of_20b_are_the_same_model():
    original, hugging_face = ModelConfig.from_dict(ORIGINAL_20B), ModelConfig.from_dict(HUGGING_FACE_20B)
    assert original == hugging_face == ModelConfig(num_hidden_layers=24, num_experts=32)
    assert original.context_length == 131072
    assert original.qkv_rows == 5120
    assert [original.window(layer) for layer in range(3)] == [128, None, 128]


def test_the_config_of_current_transformers_is_read(tmp_path):
    from transformers import GptOssConfig

    GptOssConfig(num_hidden_layers=3, num_local_experts=6).save_pretrained(tmp_path)
    assert ModelConfig.from_file(tmp_path / "config.json") == ModelConfig(num_hidden_layers=3, num_experts=6)


def test_writing_and_reading_either_layout_is_the_identity():
    config = ModelConfig(
        num_hidden_layers=3, num_experts=6, num_attention_heads=16, num_key_value_heads=4, rope_theta=9e3
    )
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_hf_dict()))) == config
    assert config.to_dict().keys() == ORIGINAL_20B.keys()
    unusual = dataclasses.replace(config, rms_norm_eps=1e-6)
    assert ModelConfig.from_dict(unusual.to_dict()) == unusual


@pytest.mark.parametrize("key", ORIGINAL_20B)
def test_each_missing_key_is_named(key):
    values = {k: v for k, v in ORIGINAL_20B.items() if k != key}
    with pytest.raises(ConfigError, match=f"missing configuration key: {key}$"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    "key", ["num_local_experts", "num_experts_per_tok", "hidden_size", "rms_norm_eps", "rope_theta"]
)
def test_each_missing_key_of_the_hugging_face_layout_is_named(key):
    values = {k: v for k, v in HUGGING_FACE_20B.items() if k != key}
    with pytest.raises(ConfigError, match=f"missing configuration key: {key}$"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (ORIGINAL_20B, {"num_layers": 3}, "unknown configuration key: num_layers"),
        (ORIGINAL_20B, {"a": 1, "b": 2}, "unknown configuration keys: a, b"),
        (ORIGINAL_20B, {"num_experts": "32"}, "num_experts must be an integer, found '32'"),
        (ORIGINAL_20B, {"num_experts": True}, "num_experts must be an integer, found True"),
        (ORIGINAL_20B, {"num_experts": 3}, r"experts_per_token \(4\) must not exceed num_experts \(3\)"),
        (ORIGINAL_20B, {"head_dim": 0}, "head_dim must be positive"),
        (ORIGINAL_20B, {"rope_theta": None}, "rope_theta must be a finite number"),
        (ORIGINAL_20B, {"rope_theta": 10**400}, "rope_theta must be a finite number"),
        (ORIGINAL_20B, {"rope_theta": 1.0}, "rope_theta must be above 1"),
        (ORIGINAL_20B, {"rope_theta": 1e39}, "rope_theta must be above 1 and at most"),
        (ORIGINAL_20B, {"rope_ntk_alpha": 32}, r"rope_ntk_alpha \(32.0\) must be below rope_ntk_beta \(32.0\)"),
        (ORIGINAL_20B, {"rope_ntk_alpha": 31.999999999999996}, r"must be below rope_ntk_beta \(32.0\)"),
        (ORIGINAL_20B, {"rope_ntk_beta": 1e308}, r"below rope_ntk_beta \(1e\+308\), both between 1e-09 and 1e\+09"),
        (ORIGINAL_20B, {"rope_ntk_alpha": 1e-320}, r"both between 1e-09 and 1e\+09"),
        (ORIGINAL_20B, {"initial_context_length": 10**400}, "must be at most 16777216 positions"),
        (ORIGINAL_20B, {"rope_scaling_factor": 1e300}, "must be at most 16777216 positions"),
        (ORIGINAL_20B, {"hidden_size": 2881}, "hidden_size must be a multiple of 32"),
        (ORIGINAL_20B, {"num_attention_heads": 60}, "must be a multiple of num_key_value_heads"),
        (HUGGING_FACE_20B, {"model_type": "llama"}, "model_type = 'llama' is not a gpt-oss model"),
        (HUGGING_FACE_20B, {"qk_norm": True}, "unknown configuration key: qk_norm"),
        (HUGGING_FACE_20B, {"layer_types": ["full_attention"] * 24}, "layer_types must alternate"),
        (HUGGING_FACE_20B, {"layer_types": 5}, "layer_types must alternate"),
        (HUGGING_FACE_20B, {"num_hidden_layers": "24"}, "num_hidden_layers must be an integer, found '24'"),
        (HUGGING_FACE_20B, {"num_hidden_layers": 10**12}, "layer_types must alternate"),
        (HUGGING_FACE_20B, {"architectures": 5}, "architectures = 5 is not a gpt-oss model"),
        (HUGGING_FACE_20B, {"tie_word_embeddings": True}, "tie_word_embeddings = True"),
        (HUGGING_FACE_20B, {"experts_per_token": 8}, "experts_per_token = 8 contradicts 4"),
        (HUGGING_FACE_20B, {"rope_scaling": None}, r"missing configuration key: rope_scaling"),
        (HUGGING_FACE_20B, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "missing configuration keys"),
    ],
)  # fmt: skip
def test_errors_name_the_key(base, change, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(base | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truncate": True}, "rope_scaling.truncate must be false"),
        ({"rope_type": "linear"}, "rope_scaling.rope_type must be 'yarn', found 'linear'"),
        ({"attention_factor": 2.0}, "rope_scaling.attention_factor = 2.0 is not supported"),
        ({"gamma": 1}, "unknown configuration key: rope_scaling.gamma"),
    ],
)
def test_errors_in_rope_scaling_name_the_key(change, message):
    rope = HUGGING_FACE_20B["rope_scaling"] | change
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(HUGGING_FACE_20B | {"rope_scaling": rope})


def test_file_errors_name_the_file(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read \(No such file"):
        ModelConfig.from_file(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: is not valid JSON"):
        ModelConfig.from_file(path)
    path.write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json: a model configuration is a JSON object, found list"):
        ModelConfig.from_file(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match=r"config\.json: is not valid JSON"):
        ModelConfig.from_file(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"config\.json: is not valid JSON"):
        ModelConfig.from_file(path)
