# SPDX-License-Identifier: Apache-2.0
"""Progress of several images: each step says which of how many it is about."""

from __future__ import annotations

from contextlib import AbstractContextManager

from .progress import Advance, Progress, StoreStep


class NumberedProgress:
    """A user's progress in which titles of steps begin with ``[3/35]``, the ``number`` of the image and of all.

    Without a ``count`` they are as they were.
    """

    def __init__(self, progress: Progress, count: int = 0) -> None:
        self._progress = progress
        self.number = 1
        self.count = count

    def say(self, message: str) -> None:
        """Tell a message."""
        self._progress.say(message)

    def warn(self, message: str) -> None:
        """Tell a warning."""
        self._progress.warn(message)

    def fail(self, message: str) -> None:
        """Tell a failure."""
        self._progress.fail(message)

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show a step of the image."""
        return self._progress.step(self._title_of(title), total)

    def store_step(self, title: str, total: int | None) -> AbstractContextManager[StoreStep]:
        """Show a step that stores the image."""
        return self._progress.store_step(self._title_of(title), total)

    def _title_of(self, title: str) -> str:
        return f"[{min(self.number, self.count)}/{self.count}] {title}" if self.count > 1 else title
