"""THE matching semantics of PS3.4 C.2.2.2, shared by C-FIND, QIDO and model selection."""

from pacs.domain.normal import normalise

__all__ = ["normalise"]
