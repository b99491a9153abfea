"""Every family of operations of imported graphs against PyTorch: values, and gradients of the weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters.exported import from_torch
from converters.mapping import to_torch

torch = pytest.importorskip("torch")
F = torch.nn.functional


class Function(torch.nn.Module):
    """A function of an image batch as a module, with the weights it asks for by shape."""

    def __init__(self, function: Callable[..., Any], weights: dict[str, tuple[int, ...]] | None = None) -> None:
        super().__init__()
        self.function = function
        generator = torch.Generator().manual_seed(0)
        for name, shape in (weights or {}).items():
            self.register_parameter(name, torch.nn.Parameter(0.5 * torch.randn(shape, generator=generator)))

    def forward(self, x: Any) -> Any:
        return self.function(x, **dict(self.named_parameters()))


def images(*shape: int, seed: int = 0) -> Any:
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape), dtype=torch.float32)


def check(module: Any, shape: tuple[int, ...]) -> Any:
    """Convert a module for one shape, and compare values and weight gradients on another image."""
    module = module.eval()
    model = from_torch(module, images(*shape), dynamic=False, resize_logits=False)
    x = images(*shape, seed=1)
    theirs = module(x)
    ours = model(jnp.asarray(x.movedim(1, -1).numpy()))
    scale = float(theirs.detach().max() - theirs.detach().min())
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().movedim(1, -1).numpy(), rtol=0, atol=2e-5 * scale)
    weight = images(*theirs.shape, seed=2)
    parameters = dict(module.named_parameters())
    if parameters:
        gradients = torch.autograd.grad((theirs * weight).sum(), list(parameters.values()))

        def loss(params: Any) -> Any:
            y = model.network.apply(params, model.stats, jnp.asarray(x.movedim(1, -1).numpy()))[0]
            return jnp.sum(y * weight.movedim(1, -1).numpy())

        found = to_torch(model.network, jax.jit(jax.grad(loss))(model.params), model.stats)
        limit = 1e-5 * float(torch.stack([g.norm() for g in gradients]).norm())
        for name, gradient in zip(parameters, gradients, strict=True):
            np.testing.assert_allclose(found[name], gradient.numpy(), rtol=0, atol=limit, err_msg=name)
    return model


def same_size(values: list[Any], size: tuple[int, ...]) -> Any:
    return torch.cat([v if v.shape[2:] == size else F.interpolate(v, size) for v in values], 1)


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


def test_activations() -> None:
    plain = [
        F.relu,
        F.relu6,
        F.leaky_relu,
        F.elu,
        F.celu,
        F.selu,
        F.gelu,
        F.silu,
        F.mish,
        F.hardswish,
        F.hardsigmoid,
        F.hardtanh,
        F.softplus,
        F.softsign,
        F.tanhshrink,
        F.hardshrink,
        F.softshrink,
        F.logsigmoid,
        torch.sigmoid,
        torch.tanh,
        torch.erf,
    ]

    def function(x: Any, slope: Any) -> Any:
        values = [f(3 * x) for f in plain]
        values += [
            F.gelu(x, approximate="tanh"),
            F.leaky_relu(x, 0.3),
            F.elu(x, 0.5),
            F.softplus(x, 2.0, 1.0),
            F.threshold(x, 0.1, -2.0),
            F.glu(x, 1),
            F.softmax(x, 1),
            F.log_softmax(x, -1),
            F.prelu(x, slope),
        ]
        return torch.cat(values, 1)

    check(Function(function, {"slope": (4,)}), (2, 4, 3, 5))


def test_arithmetic() -> None:
    def function(x: Any, a: Any) -> Any:
        y = x.abs() + 0.5
        return torch.cat(
            [
                x + a,
                x - 2 * a,
                1 - x,
                torch.rsub(x, a, alpha=3),
                x * 3 / y,
                x.add(x, alpha=2),
                y**0.5,
                y**-1,
                x**2,
                x**3,
                2**x,
                y**x,
                torch.div(3 * x, y, rounding_mode="floor"),
                torch.div(3 * x, y, rounding_mode="trunc"),
                x // 0.4,
                torch.remainder(x, 0.7),
                torch.fmod(x, 0.7),
                torch.maximum(x, a),
                torch.minimum(x, a),
                x.clamp(-0.5, 0.3),
                x.clamp(min=0.1),
                x.clamp_max(0.2),
                torch.exp(x),
                y.log(),
                y.sqrt(),
                y.rsqrt(),
                y.reciprocal(),
                x.sin(),
                x.cos(),
                x.floor(),
                x.ceil(),
                x.round(),
                x.sign(),
                x.square(),
                x.neg(),
                y.log2(),
                y.log1p(),
                x.expm1(),
                torch.atan2(x, y),
                torch.where(x > a, x, -x),
                x.masked_fill(x < 0, 7.0),
                torch.addcmul(x, y, y, value=0.5),
                torch.lerp(x, y, 0.3),
                ((x > 0) & ~(y >= 1.0) | (x == a)).float(),
                (x != a).to(torch.float64).float(),
                torch.logical_or(x > 1, x <= -1).type_as(x),
                x.double().mul(1.5).float(),
            ],
            1,
        )

    check(Function(function, {"a": (3, 1, 1)}), (2, 3, 4, 5))


def test_in_place_and_views() -> None:
    def function(x: Any) -> Any:
        y = x.clone()
        y[:, 0] += 1
        y[:, :, 1:3, ::2] *= 2
        y[:, 1].clamp_(max=0.5)
        y.relu_()
        z = torch.zeros_like(x)
        z[:, :, :2] = x[:, :, 1:3]
        return torch.cat([y, z], 1)

    check(Function(function), (2, 3, 4, 5))


def test_reductions() -> None:
    def function(x: Any) -> Any:
        def spread(value: Any) -> Any:
            return value.expand_as(x[:, :1])

        return torch.cat(
            [
                spread(x.mean((1, 2, 3), keepdim=True)),
                spread(x.sum(1, keepdim=True)),
                x.mean(1)[:, None],
                spread(x.amax((2, 3), keepdim=True)[:, :1]),
                spread(x.amin(3, True)[:, 1:2]),
                spread(x.max(1, True)[0]),
                spread(x.max(1, keepdim=True)[1].float()),
                spread(x.min(2, keepdim=True).values[:, :1]),
                x.argmax(1, True).float(),
                x.var(1, keepdim=True),
                x.std((1, 2), keepdim=True, correction=0).expand_as(x[:, :1]),
                torch.logsumexp(x, 1, keepdim=True),
                x.norm(dim=1, keepdim=True),
                x.norm(p=1, dim=1, keepdim=True),
                x.prod(1, keepdim=True),
                x.cumsum(3),
                (x > 1).any(1, keepdim=True).float(),
                (x > 0).all(1, keepdim=True).float(),
                spread(x.sum().reshape(1, 1, 1, 1)),
                spread(x.max().reshape(1, 1, 1, 1)),
                x.sum((2, 3))[:, :, None, None] * x,
            ],
            1,
        )

    check(Function(function), (2, 3, 4, 5))


def test_shapes() -> None:
    def function(x: Any) -> Any:
        b, c, h, w = x.shape
        index = torch.tensor([2, 0, 1])
        first, second, third = x.chunk(3, 1)
        parts = x.split([1, 3], 2)
        windows = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
        back = windows.view(b, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
        columns = F.unfold(x, 3, padding=1, dilation=1).unflatten(1, (c, 9)).mean(2).view(b, c, h, w)
        grid = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))[None].float().expand(b, -1, -1, -1)
        return torch.cat(
            [
                torch.cat([third, first, second], 1),
                torch.cat(parts[::-1], 2),
                torch.stack(x.unbind(1)[::-1], 1),
                back,
                columns,
                x.flatten(2).transpose(1, 2).transpose(1, 2).unflatten(2, (h, w)),
                torch.roll(x, (1, -2), (2, 3)),
                x.flip(3),
                x[:, index],
                x[:, [0, 2]],
                x.index_select(3, torch.arange(w).flip(0)),
                x.repeat(1, 2, 1, 1),
                x.repeat_interleave(2, 1),
                x[..., 1:].unfold(3, 2, 1).mean(-1).repeat(1, 1, 1, 2)[..., :w],
                F.pad(x, (1, 0, -1, 1))[..., :w],
                F.pad(x, (1, 1, 2, 0), value=2.0)[..., :h, :w],
                F.pad(x, (2, 1, 1, 0), "reflect")[..., :h, :w],
                F.pad(x, (1, 1, 1, 1), "replicate")[..., :h, :w],
                F.pad(x, (1, 0, 1, 0), "circular")[..., :h, :w],
                x.gather(1, (x > 0).long()),
                x.squeeze().unsqueeze(1)[:, 0],
                grid,
                x.narrow(1, 1, 2),
                x.select(1, 2)[:, None],
                x.triu(1),
                x.tril(),
                torch.full_like(x, 2.5),
                torch.linspace(0, 1, w).expand(b, 1, h, w),
                torch.scatter(x, 1, (x > 0).long(), 3.0),
                torch.scatter_add(x, 1, (x > 0).long(), x),
                torch.eye(h, w).expand(b, 1, h, w),
                x.movedim(1, 2).movedim(2, 1),
                x.new_ones(b, 1, h, w),
                x.tile(1, 1, 1, 1),
            ],
            1,
        )

    check(Function(function), (2, 3, 4, 6))


def test_products_and_attention() -> None:
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.norm, self.attention = torch.nn.Conv2d(3, 8, 2, 2), torch.nn.LayerNorm(8), attention
            self.mlp = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.GELU(), torch.nn.Linear(12, 8))
            self.table = torch.nn.Parameter(torch.randn(7, 2))
            self.register_buffer("place", torch.arange(12)[:, None].add(torch.arange(12)).remainder(7))

        def forward(self, x: Any) -> Any:
            y = self.embed(x)
            size = y.shape[2:]
            y = y.flatten(2).transpose(1, 2)
            z = self.norm(y)
            y = y + self.attention(z, z, z)[0]
            q, k, v = (a.unflatten(2, (2, 4)).transpose(1, 2) for a in (y, z, y * z))
            bias = self.table[self.place.view(-1)].view(12, 12, 2).permute(2, 0, 1)
            y = y + F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2)
            y = y + F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3).transpose(1, 2).flatten(2)
            y = y + torch.einsum("bhnd, bhmd -> bhnm", q, k).softmax(-1).matmul(v).transpose(1, 2).flatten(2)
            y = y + torch.bmm(z, z.transpose(1, 2)).matmul(z) + torch.baddbmm(z, z, torch.eye(8).expand(z.shape[0], 8, 8))
            y = y + self.mlp(y)
            return y.transpose(1, 2).unflatten(2, size)

    model = check(Block(), (2, 3, 6, 8))
    assert dict(model.network.layouts())["mlp.0.weight"] == "linear"


def test_sampling() -> None:
    def function(x: Any) -> Any:
        theta = torch.tensor([[[0.8, 0.2, 0.1], [-0.1, 0.9, 0.0]]]).expand(x.shape[0], -1, -1)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return torch.cat(
            [F.grid_sample(x, grid, align_corners=a, padding_mode=p) for a in (False, True) for p in ("zeros", "border")], 1
        )

    check(Function(function), (2, 3, 6, 5))
