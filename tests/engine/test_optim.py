import math

import pytest
import torch
from torch import nn

from videomae.engine.checkpoint import load_checkpoint, save_checkpoint
from videomae.engine.optim import (
    OptimConfig,
    build_optimizer,
    clip_and_norm,
    param_groups,
    scaled_lr,
    update_if_finite,
)
from videomae.engine.schedule import learning_rates, set_learning_rate
from videomae.errors import ConfigError

DEPTH = 3
CONFIG = OptimConfig(base_lr=1e-2, min_lr=1e-4, betas=(0.9, 0.95), clip_grad=0.5)


class TinyNet(nn.Module):
    """An embedding, three blocks and a head, with a 3-D token that only its name exempts from decay."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mask_token = nn.Parameter(torch.randn(1, 1, 8))
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)
        self.head.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        x = self.embed(x) + self.mask_token
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(self.norm(x)) * self.head.temperature


def layer_id(name):
    if name.startswith(("embed", "mask_token")):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else DEPTH + 1


def settings_by_name(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def test_learning_rate_is_scaled_by_the_batch_over_256():
    assert scaled_lr(1.5e-4, 2048) == pytest.approx(1.2e-3)
    assert scaled_lr(3e-4, 192) == pytest.approx(2.25e-4)
    assert scaled_lr(1e-5, 2048) == pytest.approx(8e-5)  # the final rate, the same way


def test_vectors_scalars_biases_and_named_tensors_do_not_decay():
    model = TinyNet()
    settings = settings_by_name(
        model, param_groups(model.named_parameters(), weight_decay=0.05, no_decay={"mask_token"})
    )
    assert {name for name, (_, decay) in settings.items() if decay == 0.05} == {
        "embed.weight",
        "head.weight",
        *(f"blocks.{i}.weight" for i in range(DEPTH)),
    }
    assert {decay for _, decay in settings.values()} == {0.05, 0.0}
    assert {scale for scale, _ in settings.values()} == {1.0}
    assert settings.keys() == dict(model.named_parameters()).keys()


def test_matrix_named_bias_does_not_decay():
    named = [("table.bias", nn.Parameter(torch.zeros(4, 4))), ("table.weight", nn.Parameter(torch.zeros(4, 4)))]
    groups = param_groups(named, weight_decay=0.1)
    assert [(group["name"], group["weight_decay"]) for group in groups] == [("no_decay", 0.0), ("decay", 0.1)]


def test_layer_decay_follows_the_original_formula():
    model, gamma = TinyNet(), 0.75
    groups = param_groups(
        model.named_parameters(),
        weight_decay=0.05,
        no_decay=["mask_token"],
        layer_decay=gamma,
        layer_id=layer_id,
        num_layer_ids=DEPTH + 2,
    )
    for name, (scale, _) in settings_by_name(model, groups).items():
        assert scale == gamma ** (DEPTH + 1 - layer_id(name)), name
    scales = settings_by_name(model, groups)
    assert scales["head.weight"][0] == 1.0
    assert scales["blocks.2.weight"][0] == gamma
    assert scales["embed.weight"][0] == gamma**4
    assert len({group["name"] for group in groups}) == len(groups) == 2 * (DEPTH + 2)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_wrapped_names_get_the_same_settings(prefix):
    model = TinyNet()
    options = {
        "weight_decay": 0.05,
        "no_decay": {"mask_token"},
        "layer_decay": 0.5,
        "layer_id": layer_id,
        "num_layer_ids": DEPTH + 2,
    }
    plain = param_groups(model.named_parameters(), **options)
    wrapped = param_groups(((prefix + name, p) for name, p in model.named_parameters()), **options)
    assert settings_by_name(model, wrapped) == settings_by_name(model, plain)


def test_really_compiled_models_get_the_same_settings():
    model = TinyNet()
    options = {"weight_decay": 0.05, "layer_decay": 0.5, "layer_id": layer_id, "num_layer_ids": DEPTH + 2}
    plain = param_groups(model.named_parameters(), no_decay={"mask_token", "blocks.1.weight"}, **options)
    expected = {id(p): (group["lr_scale"], group["weight_decay"]) for group in plain for p in group["params"]}
    model.blocks[1] = torch.compile(model.blocks[1], backend="eager")  # names get `_orig_mod.` in the middle
    compiled = torch.compile(model, backend="eager")
    names = [name for name, _ in compiled.named_parameters()]
    assert "_orig_mod.blocks.1._orig_mod.weight" in names
    # The compiled model's own word for the first name, the plain model's for the second.
    names = {"_orig_mod.mask_token", "blocks.1.weight"}
    groups = param_groups(compiled.named_parameters(), no_decay=names, **options)
    found = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found == expected
    assert found[id(model.mask_token)][1] == 0.0


def test_frozen_parameters_are_left_out():
    model = TinyNet()
    model.embed.requires_grad_(False)
    settings = settings_by_name(model, param_groups(model.named_parameters(), weight_decay=0.05))
    assert settings.keys() == dict(model.named_parameters()).keys() - {"embed.weight", "embed.bias"}


def test_model_without_trainable_parameters_is_refused():
    model = TinyNet().requires_grad_(False)
    with pytest.raises(ConfigError, match=r"no trainable parameter; .* unfreeze a part"):
        param_groups(model.named_parameters(), weight_decay=0.05)


def test_unknown_no_decay_name_is_refused():
    with pytest.raises(
        ConfigError, match=r"no_decay names pos_embed, which no parameter is called; .* full parameter names"
    ):
        param_groups(TinyNet().named_parameters(), weight_decay=0.05, no_decay={"pos_embed", "mask_token"})


def test_layer_decay_without_layer_ids_is_refused():
    with pytest.raises(ConfigError, match=r"layer_decay is 0.75; it needs layer ids"):
        param_groups(TinyNet().named_parameters(), weight_decay=0.05, layer_decay=0.75)


def test_layer_id_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"norm.weight has layer id 4; there are 4 layers"):
        param_groups(
            TinyNet().named_parameters(),
            weight_decay=0.05,
            layer_decay=0.75,
            layer_id=layer_id,
            num_layer_ids=DEPTH + 1,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_lr": 0.0}, "optim.base_lr is 0; a learning rate is above 0"),
        ({"base_lr": math.nan}, "optim.base_lr is nan"),
        ({"base_lr": math.inf}, "optim.base_lr is inf"),
        ({"min_lr": -1e-6}, "optim.min_lr is -1e-06; use 0 to base_lr, 0.01"),
        ({"min_lr": 0.02}, "optim.min_lr is 0.02; use 0 to base_lr, 0.01"),
        ({"betas": (0.9, 1.0)}, r"optim.betas\[1\] is 1; .* such as 0.999"),
        ({"betas": (-0.1, 0.9)}, r"optim.betas\[0\] is -0.1"),
        ({"eps": 0.0}, "optim.eps is 0"),
        ({"weight_decay": -0.1}, "optim.weight_decay is -0.1; use 0 for none"),
        ({"clip_grad": 0.0}, "optim.clip_grad is 0; .* null for no clipping"),
        ({"clip_grad": math.nan}, "optim.clip_grad is nan"),
        ({"layer_decay": 0.0}, "optim.layer_decay is 0; use above 0 to 1"),
        ({"layer_decay": 1.5}, "optim.layer_decay is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        OptimConfig(**{"base_lr": 1e-2, "min_lr": 1e-4, "betas": (0.9, 0.95), **changes})
    assert "\n" not in str(caught.value)


def make_training():
    model = TinyNet()
    groups = param_groups(
        model.named_parameters(),
        weight_decay=CONFIG.weight_decay,
        no_decay={"mask_token"},
        layer_decay=0.75,
        layer_id=layer_id,
        num_layer_ids=DEPTH + 2,
    )
    return model, build_optimizer(groups, CONFIG)


def train(model, optimizer, steps):
    table = learning_rates(12, 3, peak=1e-2, final=1e-4)
    losses = []
    for step in steps:
        set_learning_rate(optimizer, float(table[step]))
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        loss = model(x).square().mean()
        loss.backward()
        clip_and_norm(model.parameters(), CONFIG.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_fused_kernel_is_used_on_the_cpu():
    _, optimizer = make_training()
    assert optimizer.defaults["fused"] is True


def test_optimizer_takes_its_settings_from_config_and_groups():
    _, optimizer = make_training()
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}
    assert {group["eps"] for group in optimizer.param_groups} == {1e-8}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}
    assert all(group["lr"] == CONFIG.base_lr * group["lr_scale"] for group in optimizer.param_groups)


def test_fused_steps_equal_the_plain_formula_of_adamw():
    model, optimizer = make_training()
    reference = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in reference.items()}
    settings = settings_by_name(model, optimizer.param_groups)
    for step in range(1, 6):
        model(torch.randn(4, 6, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        for name, parameter in model.named_parameters():
            grad = parameter.grad.double()
            first, second = moments[name]
            first.mul_(0.9).add_(grad, alpha=0.1)
            second.mul_(0.95).add_(grad**2, alpha=0.05)
            scale, decay = settings[name]
            lr = CONFIG.base_lr * scale
            update = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
            reference[name].mul_(1 - lr * decay).sub_(update, alpha=lr)
        optimizer.step()
        optimizer.zero_grad()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach().double(), reference[name], rtol=1e-4, atol=1e-5)
            reference[name] = parameter.detach().double().clone()  # so that rounding does not add up


def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path):
    whole_model, whole_optimizer = make_training()
    whole_losses = train(whole_model, whole_optimizer, range(12))

    model, optimizer = make_training()
    losses = train(model, optimizer, range(5))
    path = save_checkpoint(tmp_path, step=5, state={"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    del model, optimizer
    model, optimizer = make_training()
    state = load_checkpoint(path)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    losses += train(model, optimizer, range(state["step"], 12))

    assert losses == whole_losses
    assert losses[-1] < losses[0]
    for name, parameter in whole_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], parameter), name
    assert optimizer.defaults["fused"] is True


def test_clipping_scales_all_gradients_to_the_norm_and_returns_the_norm_before():
    model = TinyNet()
    model(torch.randn(4, 6)).square().sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    expected = torch.cat([g.flatten() for g in before]).norm()
    norm = clip_and_norm(model.parameters(), 0.5)
    assert norm.shape == ()
    torch.testing.assert_close(norm, expected)
    after = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(after.norm(), torch.tensor(0.5))
    torch.testing.assert_close(after, torch.cat([g.flatten() for g in before]) * (0.5 / expected))


@pytest.mark.parametrize("max_norm", [None, 1e9])
def test_gradients_within_the_norm_are_untouched(max_norm):
    model = TinyNet()
    model(torch.randn(4, 6)).square().sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    norm = clip_and_norm(model.parameters(), max_norm)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    torch.testing.assert_close(norm, torch.cat([g.flatten() for g in before]).norm())


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_parameters_without_gradient_are_passed_over(max_norm):
    model = TinyNet()
    model.embed(torch.ones(1, 6)).sum().backward()
    assert clip_and_norm(model.parameters(), max_norm).item() == pytest.approx(math.sqrt(8 * 6 + 8))
    assert model.head.weight.grad is None
    assert clip_and_norm(TinyNet().parameters(), max_norm).item() == 0.0


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_norm_that_is_not_finite_is_reported_as_such(max_norm):
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([1.0, math.nan, 2.0])
    assert math.isnan(clip_and_norm([parameter], max_norm).item())


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_clipping_never_waits_for_the_device(max_norm):
    # Tensors on the meta device have no values: whatever asks the host for one raises.
    parameter = nn.Parameter(torch.ones(3, device="meta"))
    parameter.grad = torch.ones(3, device="meta")
    norm = clip_and_norm([parameter], max_norm)
    assert norm.device.type == "meta"
    with pytest.raises(RuntimeError):
        norm.item()


def trained(fused, bad_steps=(), poison=None):
    """Train for six steps, the numbered ones of them twice, first with what `poison` makes of the gradients."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(70, 130), torch.nn.Linear(130, 3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1, fused=fused)
    for step in range(6):
        for poisoned in (True, False) if step in bad_steps else (False,):
            loss = net(torch.ones(5, 70) * (step + 1)).square().mean()
            loss.backward()
            if poisoned:
                loss = poison(net, loss)
            norm = clip_and_norm(net.parameters(), 1.0)
            if bad_steps:
                update_if_finite(optimizer, loss=loss, grad_norm=norm)
            else:
                optimizer.step()
            optimizer.zero_grad()
    states = [optimizer.state[parameter] for parameter in net.parameters()]
    return [*net.parameters(), *(state[name] for state in states for name in ("step", "exp_avg", "exp_avg_sq"))]


def nan_gradient(net, loss):
    net[0].weight.grad[3, 5] = math.nan
    return loss


def infinite_gradient(net, loss):
    net[1].bias.grad[0] = -math.inf
    return loss


def nan_loss(net, loss):
    return loss * math.nan


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("poison", [nan_gradient, infinite_gradient, nan_loss])
def test_a_skipped_update_leaves_weights_moments_and_step_counts_as_they_were(fused, poison):
    expected, found = trained(fused), trained(fused, bad_steps=(0, 3), poison=poison)
    assert len(found) == 16
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)
