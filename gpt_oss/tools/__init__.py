"""The tools a model may call: browser, python and apply_patch, each usable alone and without torch.

Nothing is imported here; take what you need from its own module (`gpt_oss.tools.simple_browser`,
`gpt_oss.tools.python_docker.docker_tool`, `gpt_oss.tools.apply_patch`), or build tools by name with
`gpt_oss.tools.registry`.
"""
