"""What the paper reports, for the tables that stand beside ours: PSNR in dB and PE in per cent."""

from __future__ import annotations

#: Scale, and whether with noise.
Case = tuple[int, bool]

NAMES = ("art", "books", "dolls", "laundry", "moebius", "reindeer", "cones", "teddy", "tsukuba", "venus")

#: The paper's own network, image by image in the order of `NAMES`.
PAPER: dict[Case, tuple[tuple[float, float], ...]] = {
    (2, False): (
        (60.33, 0.037), (63.05, 0.008), (58.41, 0.025), (61.02, 0.026), (60.73, 0.029),
        (60.14, 0.025), (54.02, 0.167), (52.91, 0.255), (51.16, 0.233), (64.94, 0.001),
    ),
    (4, False): (
        (48.88, 0.219), (57.13, 0.047), (52.37, 0.150), (52.96, 0.138), (54.30, 0.146),
        (51.63, 0.136), (45.17, 0.935), (45.72, 1.966), (40.01, 1.115), (60.03, 0.014),
    ),
    (8, False): (
        (42.58, 0.696), (52.09, 0.166), (48.11, 0.455), (47.55, 0.495), (50.27, 0.358),
        (45.30, 0.351), (37.09, 3.729), (40.03, 4.606), (32.22, 3.846), (52.82, 0.113),
    ),
    (8, True): (
        (36.22, 1.998), (42.21, 0.535), (40.83, 0.812), (39.20, 0.984), (41.46, 0.847),
        (38.68, 0.916), (32.99, 4.997), (36.27, 3.261), (28.80, 7.489), (40.58, 0.810),
    ),
}  # fmt: skip

#: Averages over the ten maps as the paper prints them; "(guided)" also saw a colour image.
AVERAGES: dict[str, dict[Case, tuple[float, float]]] = {
    "Bicubic": {(4, False): (39.91, 4.32), (8, False): (36.76, 7.94), (8, True): (32.65, 6.877)},
    "RCAN": {(4, False): (46.99, 0.78), (8, False): (41.14, 2.82), (8, True): (37.57, 2.561)},
    "SAN": {(4, False): (47.01, 0.81), (8, False): (41.73, 2.28), (8, True): (37.58, 2.455)},
    "ATGV-Net": {(4, False): (47.11, 1.09), (8, False): (41.01, 3.40), (8, True): (36.69, 2.742)},
    "DJFR (guided)": {(4, False): (40.27, 2.62), (8, False): (37.33, 4.66)},
    "JID (guided)": {(4, False): (44.51, 1.52), (8, False): (41.31, 2.61)},
    "MSG-Net (guided)": {(4, False): (47.97, 0.98), (8, False): (42.58, 2.52), (8, True): (36.87, 2.636)},
    "DepthSR-Net (guided)": {(4, False): (47.48, 0.45), (8, False): (43.19, 1.71), (8, True): (37.75, 1.992)},
    "RYNet (guided)": {(4, False): (50.10, 0.52), (8, False): (44.41, 1.48), (8, True): (38.64, 1.625)},
    "the paper": {
        (2, False): (58.67, 0.081),
        (4, False): (50.82, 0.49),
        (8, False): (44.81, 1.48),
        (8, True): (37.72, 2.265),
    },
}
