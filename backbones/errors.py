"""The one error of this package."""

from __future__ import annotations


class BackboneError(ValueError):
    """A mistake the user can mend: names the argument or file, the value found and the remedy."""
