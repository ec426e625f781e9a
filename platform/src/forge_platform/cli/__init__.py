"""The command ``forge``: the platform looked at from outside."""
