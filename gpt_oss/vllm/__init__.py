"""vLLM as an engine, in this process: `gpt_oss.vllm.token_generator.TokenGenerator`."""
