"""On PYTHONPATH this folder makes OpenCV's decoder crash, or never end, on files that say so."""

import ctypes
import signal

import cv2

decode = cv2.imdecode


def crashing(encoded, flags):
    content = encoded.tobytes()
    if b"CRASH" in content:
        ctypes.string_at(0)  # a real one, in this very thread
    while b"HANG" in content:
        signal.pause()
    return decode(encoded, flags)


cv2.imdecode = crashing
