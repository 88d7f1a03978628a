"""The reader's note on the shown image, saved as it is typed."""

from contextlib import suppress
from html import escape

import ipywidgets as W

from pnilib.apps.explore.notes import LABELS, Note, Notes
from pnilib.errors import PNIError

__all__ = ["NoteBox"]


class NoteBox(W.HBox):  # type: ignore[misc]
    """place: category and image that the note is on, None before there is one.  kept: what the file says, as far as it
    was seen here.

    drafts: what could not be saved (another explorer saved something else meanwhile, the disk is full), by place: it
    stays, also while other images are shown, until the reader saves it with the button.
    """

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.place: tuple[str, str] | None = None
        self.kept = self._theirs = Note()
        self.drafts: dict[tuple[str, str], tuple[str, str, Note]] = {}
        self.label = W.Dropdown(options=[(name or "as in the data", name) for name in LABELS], description="label")
        self.label.add_class("pni-label")
        self.text = W.Textarea(placeholder="a note on this image, saved as you type", layout=W.Layout(width="480px"))
        self.text.add_class("pni-note")
        self.save = W.Button(description="save note", button_style="primary").add_class("pni-save")
        self.said = W.HTML().add_class("pni-note-said")
        self.label.disabled = self.text.disabled = self.save.disabled = True
        super().__init__([self.label, self.text, self.save, self.said])
        for widget in (self.label, self.text):
            widget.observe(lambda _: self._write(self.kept), "value")
        self.save.on_click(lambda _: self._write(self._theirs))

    def show(self, category: str, image: str) -> None:
        """Another image."""
        self.place, fault = None, ""  # what changes now is not the reader's doing
        kept, place = Note(), (category, image)
        try:
            kept = self.notes.of(category, image)
        except PNIError as found:
            fault = str(found)
        self.label.value, self.text.value, self.kept = self.drafts.get(place, (kept.label, kept.text, kept))
        self._theirs = kept
        self.label.disabled = self.text.disabled = self.save.disabled = False
        self.place = place
        if self.drafts:
            names = ", ".join(name for _, name in self.drafts)
            fault = f"not saved: the note on {names}: press `save note` there. {fault}"
        self._say(fault, bad=True)

    def _write(self, seen: Note) -> None:
        """`seen`: what the reader was shown or told of; nothing else is overwritten."""
        if self.place is None:
            return
        self.drafts[self.place] = self.label.value, self.text.value, self.kept
        try:
            self.kept = self._theirs = self.notes.save(*self.place, self.label.value, self.text.value, seen)
        except PNIError as fault:
            with suppress(PNIError):
                self._theirs = self.notes.of(*self.place)  # what the reader is told of now
            self._say(str(fault), bad=True)
            return
        del self.drafts[self.place]
        self._say(f"saved to {self.notes.file.name}")

    def _say(self, text: str, *, bad: bool = False) -> None:
        colour = "#b00020" if bad else "#00695c"
        self.said.value = f"<span style='color:{colour}'>{escape(text)}</span>" if text else ""
