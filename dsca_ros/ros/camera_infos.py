"""The camera_info that belongs to an image: they come on two topics, in any order."""

from __future__ import annotations

import threading
from collections import OrderedDict

from sensor_msgs.msg import CameraInfo, Image

#: Infos kept: they may come before or after their image.
KEPT = 16

Stamp = tuple[int, int]


def stamp_of(message: Image | CameraInfo) -> Stamp:
    """Seconds and nanoseconds of a message's stamp."""
    return message.header.stamp.sec, message.header.stamp.nanosec


class CameraInfos:
    """The newest camera infos by their stamps; any thread may use it."""

    def __init__(self) -> None:
        self._infos: OrderedDict[Stamp, CameraInfo] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, info: CameraInfo) -> bool:
        """Keeps an info; whether time went back with it, as when a bag loops: then all others are forgotten."""
        stamp = stamp_of(info)
        with self._lock:
            # One that is merely late is newer than some that are kept.
            back = stamp < min(self._infos, default=stamp)
            if back:
                self._infos.clear()
            self._infos.pop(stamp, None)  # the newest last, also if its stamp has been there
            self._infos[stamp] = info
            while len(self._infos) > KEPT:
                self._infos.popitem(last=False)
        return back

    def find(self, image: Image) -> CameraInfo | None:
        """The info of an image's stamp, else the newest of its frame, else the newest; None where there is none."""
        with self._lock:
            exact = self._infos.get(stamp_of(image))
            if exact is not None or not self._infos:
                return exact
            newest_first = list(reversed(self._infos.values()))
        # Two cameras may be on one topic: points by the other one's intrinsics would lie.
        of_frame = (info for info in newest_first if info.header.frame_id == image.header.frame_id)
        return next(of_frame, newest_first[0])

    def clear(self) -> None:
        """Forgets all: they are of another profile, or of another time."""
        with self._lock:
            self._infos.clear()

    def get(self, stamp: Stamp) -> CameraInfo | None:
        """The info of exactly this stamp."""
        with self._lock:
            return self._infos.get(stamp)

    def stamps(self) -> list[Stamp]:
        """Of all infos, in the order in which they came."""
        with self._lock:
            return list(self._infos)

    def __len__(self) -> int:
        return len(self._infos)
