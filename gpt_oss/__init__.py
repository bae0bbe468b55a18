"""gpt-oss: readable, fast inference for gpt-oss-20b and gpt-oss-120b, and the tools the models use.

Importing this package imports nothing else; pick the part you need, for example
`gpt_oss.torch.model`, `gpt_oss.harmony` or `gpt_oss.tools.apply_patch`.
"""

__version__ = "0.1.0"
