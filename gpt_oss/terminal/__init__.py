"""What the terminal chat is made of: input, commands, and three ways to show a turn. The command is `gpt_oss.chat`."""
