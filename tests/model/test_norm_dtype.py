import torch

from tiny_models import gradients, make_model, random_mask, random_video
from videomae.engine.precision import autocast
from videomae.model.layers import normalized
from videomae.model.pretraining import VideoMAEForPreTraining


def test_norms_compute_in_the_dtype_of_their_weights() -> None:
    norm, tokens = torch.nn.LayerNorm(8), torch.randn(2, 5, 8, dtype=torch.bfloat16)
    assert normalized(norm, tokens).dtype == torch.float32
    assert normalized(norm.to(torch.bfloat16), tokens).dtype == torch.bfloat16
    assert normalized(torch.nn.Identity(), tokens) is tokens


def test_gradients_of_norms_over_many_tokens_are_as_precise_as_the_others_in_bfloat16() -> None:
    # Summed in bfloat16, those of 6,000 tokens were off by up to four fifths.
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(16)
    tokens, grad = torch.randn(6000, 16), torch.randn(6000, 16) + 0.1
    exact = torch.autograd.grad(norm(tokens), (norm.weight, norm.bias), grad)
    rough = torch.autograd.grad(normalized(norm, tokens.bfloat16()), (norm.weight, norm.bias), grad)
    for one, other in zip(exact, rough, strict=True):
        assert (one - other).norm() < 0.01 * one.norm()


def test_every_gradient_of_a_bfloat16_step_points_where_the_float32_one_does() -> None:
    model = make_model(VideoMAEForPreTraining)
    video, hidden = random_video(model.config), random_mask()
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model.zero_grad()
        with autocast(torch.device("cpu"), dtype):
            loss = model(video, hidden).loss
        loss.backward()
        found[dtype] = gradients(model)
    for name, exact in found[torch.float32].items():
        rough = found[torch.bfloat16][name]
        cosine = torch.nn.functional.cosine_similarity(exact.flatten(), rough.flatten(), dim=0)
        assert cosine > 0.99, name
