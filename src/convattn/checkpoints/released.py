"""Weights that other people released: addresses, licenses, hashes and published figures."""

from collections.abc import Mapping
from dataclasses import dataclass

from convattn.checkpoints.model_card import Task

__all__ = ["RELEASED", "ReleasedFile", "ReleasedModel"]

_ESC = "https://github.com/dslisleedh/ESC/releases/download/1.0.0"
_REAL_ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_SWINIR = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0"


@dataclass(frozen=True)
class ReleasedFile:
    """A weights file of a release.

    Attributes:
        name: Of the file, below the model's source.
        parameters: Number of parameters; None where unknown.
        psnr: Published PSNR-Y on Set5 in dB; None for real-world models.
        sha256: None where nobody publishes it.
        size: In bytes; None where unknown.
    """

    name: str
    parameters: int | None = None
    psnr: float | None = None
    sha256: str | None = None
    size: int | None = None

    def url(self, model: "ReleasedModel") -> str:
        """Return the file's address."""
        return f"{model.source}/{self.name}"


@dataclass(frozen=True)
class ReleasedModel:
    """A model that somebody released.

    Attributes:
        name: In the catalog.
        task: What it is for.
        good_for: The same in a few words.
        license: SPDX identifier.
        source: The address of the release.
        files: By scale.
        needs_spandrel: Whether spandrel loads it.
    """

    name: str
    task: Task
    good_for: str
    license: str
    source: str
    files: Mapping[int, ReleasedFile]
    needs_spandrel: bool = False


def _esc(
    name: str, good_for: str, files: Mapping[int, ReleasedFile], task: Task = Task.classic
) -> ReleasedModel:
    return ReleasedModel(name, task, good_for, "MIT", _ESC, files)


def _real_esrgan(name: str, good_for: str, scale: int, file: ReleasedFile) -> ReleasedModel:
    return ReleasedModel(
        name, Task.real_world, good_for, "BSD-3-Clause", _REAL_ESRGAN, {scale: file}, needs_spandrel=True
    )


RELEASED = (
    _esc(
        "esc",
        "clean images, high fidelity",
        {
            2: ReleasedFile("ESC_DIV2K_X2.pth", 946_728, 38.35),
            3: ReleasedFile("ESC_DIV2K_X3.pth", 955_383, 34.84),
            4: ReleasedFile("ESC_DIV2K_X4.pth", 967_500, 32.68),
        },
    ),
    _esc(
        "esc-dflip",
        "clean images, trained on more data",
        {
            2: ReleasedFile("ESC_DFLIP_X2.pth", 946_728, 38.34),
            3: ReleasedFile("ESC_DFLIP_X3.pth", 955_383, 34.85),
            4: ReleasedFile("ESC_DFLIP_X4.pth", 967_500, 32.79),
        },
    ),
    _esc(
        "esc-light",
        "clean images, two thirds of the cost",
        {
            2: ReleasedFile("ESC_light_X2.pth", 603_600, 38.24),
            3: ReleasedFile("ESC_light_X3.pth", 612_255, 34.61),
            4: ReleasedFile("ESC_light_X4.pth", 624_372, 32.52),
        },
    ),
    _esc(
        "esc-fp",
        "clean images, fewest operations",
        {
            2: ReleasedFile("ESC_FP_X2.pth", 523_675, 38.27),
            3: ReleasedFile("ESC_FP_X3.pth", 530_170, 34.72),
            4: ReleasedFile("ESC_FP_X4.pth", 539_263, 32.56),
        },
    ),
    _esc(
        "esc-xl",
        "clean images, highest fidelity, slow",
        {
            2: ReleasedFile("ESC_XL_DF2K_X2_FT.pth", 12_455_916),
            3: ReleasedFile("ESC_XL_DF2K_X3_FT.pth", 12_481_851),
            4: ReleasedFile("ESC_XL_DF2K_X4_FT.pth", 12_518_160),
        },
    ),
    _esc(
        "esc-real",
        "photos with noise and artifacts, sharp",
        {
            4: ReleasedFile(
                "ESC_Real_X4_GAN.pth",
                2_265_307,
                sha256="d6932bd01e29c9335f5f678b0e9b31ede906a42244887ab8888b1d39a8667f2d",
            )
        },
        Task.real_world,
    ),
    _esc(
        "esc-real-mse",
        "photos with noise and artifacts, faithful",
        {
            4: ReleasedFile(
                "ESC_Real_X4_MSE.pth",
                2_265_307,
                sha256="ba22ae75b5f77382b1046e68634f58a53fc7ff5ffa46714133bfba30811ad943",
            )
        },
        Task.real_world,
    ),
    _esc(
        "esc-real-xl",
        "photos with noise and artifacts, large network",
        {4: ReleasedFile("ESC_Real_XL_DF2KOST_GAN.pth")},
        Task.real_world,
    ),
    _real_esrgan(
        "realesrgan-x4plus",
        "photos with noise and artifacts, very sharp, slow",
        4,
        ReleasedFile(
            "v0.1.0/RealESRGAN_x4plus.pth",
            16_697_987,
            sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
            size=67_040_989,
        ),
    ),
    _real_esrgan(
        "realesrgan-x2plus",
        "photos with noise and artifacts, very sharp, slow",
        2,
        ReleasedFile(
            "v0.2.1/RealESRGAN_x2plus.pth",
            16_703_171,
            sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
            size=67_061_725,
        ),
    ),
    _real_esrgan(
        "realesrgan-x4plus-anime",
        "drawings and anime",
        4,
        ReleasedFile(
            "v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
            4_467_779,
            sha256="f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
            size=17_938_799,
        ),
    ),
    _real_esrgan(
        "realesr-general-x4v3",
        "photos with noise and artifacts, fast",
        4,
        ReleasedFile(
            "v0.2.5.0/realesr-general-x4v3.pth",
            1_213_296,
            sha256="8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
            size=4_885_111,
        ),
    ),
    _real_esrgan(
        "realesr-animevideov3",
        "anime videos, fast",
        4,
        ReleasedFile(
            "v0.2.5.0/realesr-animevideov3.pth",
            621_424,
            sha256="b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
            size=2_504_012,
        ),
    ),
    ReleasedModel(
        "swinir-light",
        Task.classic,
        "clean images, a transformer to compare with",
        "Apache-2.0",
        _SWINIR,
        {
            2: ReleasedFile("002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2.pth", 910_152, 38.14),
            3: ReleasedFile("002_lightweightSR_DIV2K_s64w8_SwinIR-S_x3.pth", 918_267, 34.62),
            4: ReleasedFile("002_lightweightSR_DIV2K_s64w8_SwinIR-S_x4.pth", 929_628, 32.44),
        },
        needs_spandrel=True,
    ),
)
"""Models whose license and address are certain. PSNR is that of the papers."""
