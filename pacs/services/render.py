"""Pictures of stored frames: which stands for a study or series, how it is seen, encoded for a screen (PS3.18 8.7.4).

Native frames are unpacked here, code streams in processes that may die (`pacs.services.decoders`).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pacs.domain import pixels, presentation, render, scaling, softcopy
from pacs.domain.admission import Inadmissible, admit
from pacs.domain.frames import Description
from pacs.domain.levels import Scope
from pacs.domain.pixels import Decoded, Undecodable
from pacs.domain.presentation import Presentation
from pacs.domain.render import GIF, JPEG, PNG, WEBP, Look, Picture
from pacs.domain.uids import is_uid
from pacs.errors import BadRequest, Damaged, NotAcceptable, NotFound
from pacs.services.instances import Files, StoredInstance

if TYPE_CHECKING:
    from pacs.services.retrieve import Retrieve

Choice = tuple[StoredInstance, int]  # and the number of one of its frames, from 1
Decode = Callable[[bytes, Description, str], Decoded]

MOST_PIXELS = 1 << 27  # of a frame that is shown
AT_ONCE = 4  # pictures in the making: each holds a few copies of its frame
PRESENTATIONS_KEPT = 64
TRIED = 5  # instances of a series, until one of them can be shown
_GIF_HEAD = 13 + 3 * 256  # bytes before the image of a GIF: its screen and its colours
_FOR_EVER = b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0"
SECONDARY = frozenset(  # drawn over images or computed from them: these stand for a study only where it has no others
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
        "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
        "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
    }
)


class Render:
    """Makes pictures. Thread-safe. `decode` turns a code stream into samples."""

    def __init__(self, retrieve: "Retrieve", files: Files, decode: Decode) -> None:
        self._retrieve, self._files, self._decode = retrieve, files, decode
        self._known: OrderedDict[tuple[int, str], tuple[Presentation, ...]] = OrderedDict()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def picture(self, instance: StoredInstance, number: int, look: Look) -> bytes:
        """Frame `number` (from 1) as an image of the wanted type.

        Raises NotFound beyond the last frame, NotAcceptable where it cannot be decoded or shown, BadRequest for a
        region outside it, Damaged.
        """
        with self._places:
            return _encoded(self._seen(instance, number, look), look)

    def animation(self, instance: StoredInstance, look: Look, seconds: float) -> Iterator[bytes]:
        """All frames of an instance as one GIF that moves for ever, each frame shown so long, made while it is taken.

        Raises as `picture` does, for a later frame while iterating.
        """
        numbers = range(1, instance.number_of_frames + 1)
        return _moving((self.picture(instance, number, look) for number in numbers), seconds)

    def presented(
        self, state: StoredInstance, look: Look, onto: StoredInstance | None = None, number: int = 0
    ) -> bytes:
        """An image as a presentation state shows it: the first image of the state that is here, or `onto`.

        `number` is that of a frame; 0 is the first that the state is about. Raises as `picture` does, and NotAcceptable
        for a state that is about none of the images, or of a kind that is not applied here.
        """
        if state.sop_class_uid not in softcopy.STATES:
            raise NotAcceptable("Presentation states of this kind are not applied here; grayscale and colour ones are.")
        with self._files.view(state) as view, self._places:
            try:
                admitted = admit(view, nested=True)
            except Inadmissible as error:
                raise Damaged(f"The file of this object cannot be read: {error.message}.") from error
            reference, image = self._referenced(state, softcopy.references(admitted, view), onto)
            frame = number or (reference.frames[0] if reference.frames else 1)
            said = softcopy.read(admitted, view, reference, frame)
            return _encoded(self._seen(image, frame, look, said), look)

    def _referenced(
        self, state: StoredInstance, references: Sequence[softcopy.Reference], onto: StoredInstance | None
    ) -> tuple[softcopy.Reference, StoredInstance]:
        for reference in references:
            if onto is not None and onto.sop_instance_uid == reference.sop_instance_uid:
                return reference, onto
            if onto is None and is_uid(reference.series_uid) and is_uid(reference.sop_instance_uid):
                scope = Scope(state.study_uid, reference.series_uid, reference.sop_instance_uid)
                with suppress(NotFound):
                    return reference, self._retrieve.locate(scope)[0]
        raise NotAcceptable("The presentation state is about no image that is asked for, or stored in this study.")

    def representatives(self, instances: Sequence[StoredInstance]) -> tuple[Choice, ...]:
        """The frames that may stand for these instances (ordered as `locate` does), best first: those in the middle
        of the largest series of images. Empty where no instance has frames."""
        shown = [instance for instance in instances if instance.number_of_frames > 0]
        images = [instance for instance in shown if instance.sop_class_uid not in SECONDARY] or shown
        series = [list(members) for _uid, members in groupby(images, lambda instance: instance.series_uid)]
        largest: list[StoredInstance] = max(series, key=_frames_of, default=[])
        nearest = sorted(range(len(largest)), key=lambda place: abs(place - len(largest) // 2))
        return tuple((largest[place], largest[place].number_of_frames // 2 + 1) for place in nearest[:TRIED])

    def _seen(self, instance: StoredInstance, number: int, look: Look, said: softcopy.State | None = None) -> Picture:
        try:
            own = self._presentation(instance, number)
            decoded = self._decoded(instance, number)
            if said is None:
                return scaling.fit(render.picture(decoded, own, look.window), look.viewport)
            shown = render.picture(decoded, softcopy.presented(own, said), look.window)
            return scaling.fit(softcopy.applied(shown, said), look.viewport)
        except Undecodable as error:
            raise NotAcceptable(
                f"The frame cannot be shown: {error.message}; /frames with transfer-syntax=* gives it as stored."
            ) from error
        except scaling.NothingSeen as error:
            raise BadRequest("The region that was asked for lies outside the image.") from error

    def _decoded(self, instance: StoredInstance, number: int) -> Decoded:
        if instance.number_of_frames == 0:
            raise NotFound("This instance has no pixel data, and so no picture.")
        table = self._retrieve.table(instance)
        about = table.description
        if about.rows * about.columns > MOST_PIXELS:
            raise Undecodable(f"frames of {about.rows} x {about.columns} pixels are too large to be rendered")
        [stream] = self._retrieve.frames(instance, [number]).parts
        if table.encapsulated:
            return self._decode(stream, about, table.transfer_syntax_uid)
        return pixels.decode(stream, about, "")

    def _presentation(self, instance: StoredInstance, number: int) -> Presentation:
        """That of a frame; those of an object are read once, and kept for whoever scrolls through its frames."""
        key = (instance.pk, instance.object_name)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
        if known is None:
            known = self._read(instance)
            with self._lock:
                self._known[key] = known
                while len(self._known) > PRESENTATIONS_KEPT:
                    self._known.popitem(last=False)
        return known[min(number, len(known)) - 1]

    def _read(self, instance: StoredInstance) -> tuple[Presentation, ...]:
        try:
            with self._files.view(instance) as view:
                return presentation.read(admit(view, nested=True), view)
        except Inadmissible as error:
            raise Damaged(f"The file of this object cannot be read: {error.message}.") from error


def _frames_of(members: Sequence[StoredInstance]) -> int:
    return sum(member.number_of_frames for member in members)


def _encoded(image: Picture, look: Look) -> bytes:
    try:
        return bytes(_ENCODERS[look.media_type](np.ascontiguousarray(image), look.quality))
    except (RuntimeError, ValueError) as error:  # what the encoders raise is a RuntimeError
        raise NotAcceptable(f"A picture of this size cannot be made as {look.media_type}.") from error


def _jpeg(image: Picture, quality: int) -> Any:
    return imagecodecs.jpeg8_encode(image, level=quality)


def _png(image: Picture, _quality: int) -> Any:
    """Runs of the differences of neighbours: half the time of the usual search, and no larger."""
    return imagecodecs.png_encode(
        image, level=1, strategy=imagecodecs.PNG.STRATEGY.RLE, filter=imagecodecs.PNG.FILTER.SUB
    )


def _gif(image: Picture, _quality: int) -> Any:
    """Gray as it is; colours as the nearest of 252 evenly spaced ones."""
    room = 2 * image.shape[0] * image.shape[1] + (1 << 12)  # no code is longer than 12 bits
    if image.ndim == 2:
        return imagecodecs.gif_encode(image, out=room)
    steps = np.array([5, 6, 5], np.uint16)
    red, green, blue = np.moveaxis((image * steps + 127) // 255, -1, 0)
    return imagecodecs.gif_encode((red * 42 + green * 6 + blue).astype(np.uint8), colormap=_cube(steps), out=room)


def _moving(pictures: Iterator[bytes], seconds: float) -> Iterator[bytes]:
    """Single GIFs of one size and one colour table as the frames of one (GIF89a 23, 26; hundredths of a second)."""
    hundredths = min(max(round(seconds * 100), 2), 0xFFFF)  # browsers show shorter ones slowly
    shown = b"\x21\xf9\4\0" + hundredths.to_bytes(2, "little") + b"\0\0"
    for place, picture in enumerate(pictures):
        if place == 0:
            yield b"GIF89a" + picture[6:_GIF_HEAD] + _FOR_EVER
        yield shown + picture[_GIF_HEAD:-1]
    yield b";"


def _cube(steps: NDArray[np.uint16]) -> Picture:
    """The 6 x 7 x 6 colours of a GIF, red slowest, filled up to 256 with black."""
    places = np.indices([int(step) + 1 for step in steps]).reshape(3, -1).T
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(places)] = places * 255 // steps
    return colours


def _webp(image: Picture, quality: int) -> Any:
    """WebP knows no gray: three equal samples."""
    colours = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    return imagecodecs.webp_encode(colours, level=quality, lossless=False)


_ENCODERS: dict[str, Callable[[Picture, int], Any]] = {JPEG: _jpeg, PNG: _png, GIF: _gif, WEBP: _webp}
