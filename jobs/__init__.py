"""Commands: flags become a config dataclass, one call, an exit code."""
