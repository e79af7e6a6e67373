"""How a component refuses a value of one of its arguments."""

__all__ = ["check_range"]


def check_range(owner: object, argument: str, value, allowed: str, ok: bool) -> None:
    """Raises ``ValueError`` with the class (or its name), the argument, what is allowed and the value, unless ``ok``."""
    if not ok:
        name = owner if isinstance(owner, str) else type(owner).__name__
        raise ValueError(f"{name}: {argument} must be {allowed}; got {value!r}")
