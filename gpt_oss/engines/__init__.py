"""Other projects' engines behind `TokenGenerator`: transformers and Ollama (vLLM is in `gpt_oss.vllm`)."""
