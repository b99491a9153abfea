"""Layers of imported graphs against PyTorch, in values and gradients: convolutions, pooling, interpolation, norms, sampling."""

from typing import Any

import pytest

from tests.exported_modules import Function, check, same_size

torch = pytest.importorskip("torch")
F = torch.nn.functional


def test_convolutions_2d() -> None:
    def function(x: Any, dense: Any, grouped: Any, depthwise: Any, even: Any, up: Any, up_grouped: Any, bias: Any) -> Any:
        return same_size(
            [
                F.conv2d(x, dense, bias, stride=2, padding=(1, 2)),
                F.conv2d(x, dense, dilation=2, padding=3),
                F.conv2d(x, grouped, groups=2, padding=1),
                F.conv2d(x, depthwise, groups=4, padding=2, dilation=2),
                F.conv2d(x, depthwise, groups=4, stride=(2, 3)),
                F.conv2d(x, even, bias, padding="same"),
                F.conv2d(x, even, padding="valid"),
                F.conv2d(x, dense[:, :, :1, :1], bias),
                F.conv_transpose2d(x, up, bias, stride=2, padding=1),
                F.conv_transpose2d(x, up, stride=(3, 2), output_padding=(2, 1)),
                F.conv_transpose2d(x, up, stride=2, dilation=2),
                F.conv_transpose2d(x, up_grouped, stride=2, groups=2, padding=1, output_padding=1),
            ],
            x.shape[2:],
        )

    check(
        Function(
            function,
            {
                "dense": (3, 4, 3, 3),
                "grouped": (6, 2, 3, 3),
                "depthwise": (4, 1, 3, 3),
                "even": (3, 4, 2, 4),
                "up": (4, 3, 3, 3),
                "up_grouped": (4, 3, 4, 3),
                "bias": (3,),
            },
        ),
        (2, 4, 11, 14),
    )


def test_convolutions_1d_and_3d() -> None:
    def function(x: Any, line: Any, line_up: Any, cube: Any, cube_up: Any, deep: Any) -> Any:
        row = x.mean((3, 4))
        row = F.conv_transpose1d(F.conv1d(row, line, padding=1), line_up, stride=2)[:, :, :6]
        cubes = [
            F.conv3d(x, cube, padding=1),
            F.conv3d(x, cube, stride=(1, 2, 2)),
            F.conv_transpose3d(x, cube_up, stride=2),
            F.conv3d(x, deep, groups=2, padding=1),
        ]
        return same_size([row[:, :, :, None, None].expand(-1, -1, -1, *x.shape[3:]), *cubes], x.shape[2:])

    check(
        Function(
            function,
            {
                "line": (3, 2, 3),
                "line_up": (3, 2, 2),
                "cube": (3, 2, 3, 3, 3),
                "cube_up": (2, 3, 2, 2, 2),
                "deep": (2, 1, 3, 3, 3),
            },
        ),
        (2, 2, 6, 5, 4),
    )


def test_pooling() -> None:
    def function(x: Any) -> Any:
        value, place = F.max_pool2d(x, 2, return_indices=True)
        return same_size(
            [
                F.max_pool2d(x, 2),
                F.max_pool2d(x, 2, ceil_mode=True),
                F.max_pool2d(x, 3, 2, 1),
                F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
                F.max_pool2d(x, 2, 1, 0, 2),
                F.max_unpool2d(value, place, 2),
                F.avg_pool2d(x, 2),
                F.avg_pool2d(x, 3, 2, 1),
                F.avg_pool2d(x, 3, 2, 1, True, False),
                F.avg_pool2d(x, 3, 2, 1, True, True),
                F.avg_pool2d(x, 2, divisor_override=3),
                F.adaptive_avg_pool2d(x, 1),
                F.adaptive_avg_pool2d(x, (3, 7)),
                F.adaptive_avg_pool2d(x, 4),
                F.lp_pool2d(x.abs(), 2, 2),
            ],
            x.shape[2:],
        )

    check(Function(function), (2, 3, 12, 14))

    def cubes(x: Any) -> Any:
        return same_size(
            [F.max_pool3d(x, 2), F.max_pool3d(x, 3, 2, 1), F.avg_pool3d(x, 2), F.adaptive_avg_pool3d(x, 2)], x.shape[2:]
        )

    check(Function(cubes), (1, 2, 6, 5, 4))


def test_max_pool_places() -> None:
    def function(x: Any) -> Any:
        value, place = F.max_pool2d(x, 3, 2, 1, return_indices=True)
        return torch.cat([value, place.float() / 100], 1)

    check(Function(function), (1, 2, 7, 8))


def test_interpolation() -> None:
    def function(x: Any) -> Any:
        return same_size(
            [
                F.interpolate(x, (9, 5)),
                F.interpolate(x, scale_factor=2),
                F.interpolate(x, (9, 5), mode="nearest-exact"),
                F.interpolate(x, (9, 12), mode="bilinear"),
                F.interpolate(x, (9, 12), mode="bilinear", align_corners=True),
                F.interpolate(x, scale_factor=1.5, mode="bilinear"),
                F.interpolate(x, scale_factor=0.4, mode="bilinear"),
                F.interpolate(x, scale_factor=1.3, mode="nearest"),
                F.interpolate(x, (9, 12), mode="bicubic"),
                F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=True),
                F.pixel_shuffle(x, 2),
                F.pixel_unshuffle(x[:, :, :6], 2),
                F.channel_shuffle(x, 2),
            ],
            x.shape[2:],
        )

    check(Function(function), (2, 4, 7, 6))
    check(
        Function(
            lambda x: same_size(
                [
                    F.interpolate(x, (4, 7, 5), mode="trilinear"),
                    F.interpolate(x, scale_factor=2),
                    F.interpolate(x, (4, 7, 5), mode="trilinear", align_corners=True),
                ],
                x.shape[2:],
            )
        ),
        (1, 2, 3, 4, 5),
    )


def test_norms() -> None:
    module = torch.nn.Sequential(
        torch.nn.BatchNorm2d(4),
        torch.nn.Conv2d(4, 4, 1),
        torch.nn.InstanceNorm2d(4, affine=True),
        torch.nn.Conv2d(4, 4, 1),
        torch.nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        torch.nn.Conv2d(4, 4, 1),
        torch.nn.GroupNorm(2, 4),
        torch.nn.LayerNorm((4, 5, 6)),
        torch.nn.InstanceNorm2d(4),
        torch.nn.BatchNorm2d(4, affine=False),
    )
    torch.manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point():
            with torch.no_grad():
                value.uniform_(0.5, 2.0) if "var" in name else value.normal_()
    model = check(module, (2, 4, 5, 6))
    assert {n for n in model.stats if n.startswith("0.")} == {"0.running_mean", "0.running_var"}
    check(
        Function(
            lambda x: (
                F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)
                + F.rms_norm(x, (5,))
                + F.normalize(x, dim=1)
                + F.group_norm(x, 4)
            )
        ),
        (2, 4, 3, 5),
    )


def test_sampling() -> None:
    def function(x: Any) -> Any:
        theta = torch.tensor([[[0.8, 0.2, 0.1], [-0.1, 0.9, 0.0]]]).expand(x.shape[0], -1, -1)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return torch.cat(
            [F.grid_sample(x, grid, align_corners=a, padding_mode=p) for a in (False, True) for p in ("zeros", "border")], 1
        )

    check(Function(function), (2, 3, 6, 5))
