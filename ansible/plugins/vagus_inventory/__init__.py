"""What an inventory means: its variables judged in words, the settings, keys and certificates that follow from it.

No Ansible in it, and no host is asked: the plugins beside it are its edges. It stands on the vagus package itself, so
that what it accepts is what agent and controller accept.
"""
