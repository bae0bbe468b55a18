"""The tools over the Model Context Protocol: `python -m gpt_oss.tools.mcp browser|python`."""
