"""Whole edits inside the host: batches, sizes, masks, noise, and the host's own nodes."""

from __future__ import annotations

import pytest
import torch

from ip2p.ip2p_core.errors import BadImageSize, BadInstruction, NonFiniteLatents

INSTRUCTION = "make it black and white"


def edit(editor, image, instruction=INSTRUCTION, *, seed=5, steps=3, sampler_name="euler_ancestral", **options):
    from ip2p.nodes.edit import InstructEdit

    return InstructEdit.execute(
        editor.model,
        editor.clip,
        editor.vae,
        image,
        instruction,
        text_guidance_scale=options.pop("text_guidance_scale", -1.0),
        image_guidance_scale=-1.0,
        seed=seed,
        steps=steps,
        sampler_name=sampler_name,
        scheduler="model default",
        working_resolution=options.pop("working_resolution", 0),
        **options,
    ).args


def noisy_samplers():
    """Every sampler of the host that takes a noise source; see comfy_adapter/sampling.py."""
    return [
        "euler_ancestral", "euler_ancestral_cfg_pp", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde",
        "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_2m_sde_gpu", "ddpm", "lcm", "res_multistep_ancestral", "er_sde",
        "seeds_2", "sa_solver",
    ]  # fmt: skip


@pytest.mark.parametrize("sampler_name", noisy_samplers())
def test_a_batch_of_three_is_three_single_edits(editor, photo, sampler_name):
    _, together = edit(editor, photo, sampler_name=sampler_name, seed=40)
    for i in range(3):
        _, alone = edit(editor, photo[i : i + 1], sampler_name=sampler_name, seed=40 + i)
        torch.testing.assert_close(together["samples"][i : i + 1], alone["samples"], rtol=1e-3, atol=1e-3)


def test_every_sampler_that_takes_a_noise_source_gets_ours(comfy):
    import inspect

    import comfy.samplers

    from ip2p.nodes.comfy_adapter.sampling import ItemNoiseSampler, make_sampler, sampler_names

    for name in sampler_names():
        takes_noise = (
            "noise_sampler" in inspect.signature(comfy.samplers.sampler_object(name).sampler_function).parameters
        )
        assert isinstance(make_sampler(name, [1]), ItemNoiseSampler) == takes_noise


def test_the_noise_does_not_depend_on_what_was_drawn_before(editor, photo):
    _, first = edit(editor, photo[:1])
    torch.manual_seed(123)
    torch.rand(7)
    _, second = edit(editor, photo[:1])
    assert torch.equal(first["samples"], second["samples"])


def test_one_line_per_image_is_an_instruction_for_each(editor, photo):
    _, both = edit(editor, photo[:2], "make it red\nmake it blue", seed=8)
    for i, instruction in enumerate(("make it red", "make it blue")):
        _, alone = edit(editor, photo[i : i + 1], instruction, seed=8 + i)
        torch.testing.assert_close(both["samples"][i : i + 1], alone["samples"], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(both["samples"], edit(editor, photo[:2], "make it red", seed=8)[1]["samples"])


def test_the_edit_node_is_the_composition_of_the_others(editor, photo):
    from ip2p.nodes.edit import DualCFGSampler, InstructConditioning, InstructDecode

    image, latent = edit(editor, photo[:2], seed=3)
    *conds, source = InstructConditioning.execute(editor.clip, editor.vae, photo[:2], INSTRUCTION, 0).args
    sampled, _ = DualCFGSampler.execute(
        editor.model, *conds, source, -1.0, -1.0, 3, 3, "euler_ancestral", "model default", 1.0
    ).args
    assert torch.equal(sampled["samples"], latent["samples"])
    assert torch.equal(InstructDecode.execute(editor.vae, sampled, photo[:2]).args[0], image)


def test_the_hosts_own_nodes_give_the_same_picture(comfy, editor, photo):
    from comfy_extras import nodes_custom_sampler as custom
    from comfy_extras.nodes_ip2p import InstructPixToPixConditioning

    image = photo[:1, :48, :64]  # a size that needs no fitting
    ours, _ = edit(editor, image, sampler_name="euler", text_guidance_scale=5.0)
    positive, negative = (comfy.nodes.CLIPTextEncode().encode(editor.clip, text)[0] for text in (INSTRUCTION, ""))
    full, middle, empty = InstructPixToPixConditioning.execute(positive, negative, image, editor.vae).args
    guider = custom.DualCFGGuider.execute(editor.model, full, middle, negative, 5.0, 1.5, "regular").args[0]
    sigmas = custom.BasicScheduler.execute(editor.model, "normal", 3, 1.0).args[0]
    samples = custom.SamplerCustomAdvanced.execute(
        custom.RandomNoise.execute(5).args[0], guider, custom.KSamplerSelect.execute("euler").args[0], sigmas, empty
    ).args[0]
    (theirs,) = comfy.nodes.VAEDecode().decode(editor.vae, samples)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_hosts_conditioning_works_in_our_guider(comfy, editor, photo, caplog):
    from comfy_extras.nodes_ip2p import InstructPixToPixConditioning

    from ip2p.nodes.edit import DualCFGSampler

    positive, negative = (comfy.nodes.CLIPTextEncode().encode(editor.clip, text)[0] for text in (INSTRUCTION, ""))
    full, middle, empty = InstructPixToPixConditioning.execute(positive, negative, photo[:1, :48, :64], editor.vae).args
    DualCFGSampler.execute(editor.model, full, middle, negative, empty, 5.0, 1.5, 0, 1, "euler", "normal", 1.0)
    assert 'on "uncond" has lost its role' in caplog.text


@pytest.mark.parametrize("size", [(1, 1), (30, 800), (31, 17), (64, 64), (65, 129)])
def test_the_result_has_the_size_of_the_input(editor, size):
    image, _ = edit(editor, torch.rand(1, *size, 3), steps=1)
    assert image.shape == (1, *size, 3)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures_work(editor, channels):
    image, _ = edit(editor, torch.rand(1, 20, 24, channels), steps=1)
    assert image.shape == (1, 20, 24, 3)


def test_emoji_and_brackets_are_plain_text(editor, photo):
    _, plain = edit(editor, photo[:1], "a (red:2.0) hat")
    _, other = edit(editor, photo[:1], "a red hat")
    edit(editor, photo[:1], "make it 🎉 and (((", steps=1)
    assert not torch.equal(plain["samples"], other["samples"])
    assert tuple(_tokens(editor.clip, "a (red:2.0) hat")) != tuple(_tokens(editor.clip, "a red hat"))


def _tokens(clip, text):
    from ip2p.nodes.comfy_adapter import text as adapter

    (row,) = adapter._tokens(clip, text)["l"]
    assert all(weight == 1.0 for _, weight in row)
    return [token for token, _ in row]


def test_a_long_instruction_is_cut_to_77_tokens_with_a_warning(editor, photo, caplog):
    words = [f"word{i}" for i in range(500)]
    edit(editor, photo[:1], " ".join(words), steps=1)
    assert len(_tokens(editor.clip, " ".join(words))) == 77
    assert "tokens and the text encoder reads 77" in caplog.text
    assert "word499" in caplog.text


def test_a_short_instruction_gives_no_warning(editor, photo, caplog):
    edit(editor, photo[:1], steps=1)
    assert "tokens" not in caplog.text


def test_pixels_outside_the_mask_are_bit_identical(editor, photo):
    mask = torch.zeros(1, 50, 70)
    mask[:, 10:40, 20:50] = 1.0
    image, _ = edit(editor, photo[:2], mask=mask, mask_feather=4)
    outside = (mask == 0).expand(2, -1, -1)
    assert torch.equal(image[outside], photo[:2][outside])
    assert not torch.equal(image[:, 20:30, 30:40], photo[:2, 20:30, 30:40])


def test_latents_outside_the_mask_are_kept(editor, photo):
    from ip2p.nodes import edit_steps

    mask = torch.zeros(1, 50, 70)
    mask[:, :, 35:] = 1.0
    source = edit_steps.condition(editor.clip, editor.vae, photo[:1], INSTRUCTION, mask=mask).latent["samples"]
    _, latent = edit(editor, photo[:1], mask=mask)
    torch.testing.assert_close(latent["samples"][..., :7], source[..., :7], rtol=1e-4, atol=1e-4)
    assert (latent["samples"][..., 9:] - source[..., 9:]).abs().max() > 1e-2


def test_a_mask_over_everything_is_an_edit_of_everything(editor, photo):
    _, masked = edit(editor, photo[:1], mask=torch.ones(1, 50, 70))
    _, plain = edit(editor, photo[:1])
    torch.testing.assert_close(masked["samples"], plain["samples"], rtol=1e-4, atol=1e-4)


def test_denoise_below_one_starts_from_the_source(editor, photo):
    from ip2p.nodes.edit import DualCFGSampler, InstructConditioning

    *conds, source = InstructConditioning.execute(editor.clip, editor.vae, photo[:1], INSTRUCTION, 0).args
    distances = []
    for denoise in (0.0, 0.1, 1.0):
        sampled, _ = DualCFGSampler.execute(
            editor.model, *conds, source, 1.0, 1.0, 0, 4, "euler", "normal", denoise
        ).args
        distances.append(float((sampled["samples"] - source["samples"]).abs().mean()))
    assert distances[0] == 0
    assert distances[0] < distances[1] < distances[2]


def test_a_repeated_latent_gets_the_conditioning_of_its_own_image(comfy, editor, photo):
    from ip2p.nodes.edit import DualCFGSampler, InstructConditioning

    *conds, source = InstructConditioning.execute(editor.clip, editor.vae, photo[:2], "red\nblue", 0).args
    (repeated,) = comfy.nodes.RepeatLatentBatch().repeat(source, 2)
    settings = (3.0, 1.5, 0, 2, "euler", "normal", 0.5)
    four, _ = DualCFGSampler.execute(editor.model, *conds, repeated, *settings).args
    second, _ = DualCFGSampler.execute(
        editor.model, *conds, {"samples": source["samples"]}, 3.0, 1.5, 2, *settings[3:]
    ).args
    torch.testing.assert_close(four["samples"][2:], second["samples"], rtol=1e-3, atol=1e-3)


def test_a_latent_of_another_size_or_number_is_refused(editor, photo):
    from ip2p.nodes.edit import DualCFGSampler, InstructConditioning

    *conds, source = InstructConditioning.execute(editor.clip, editor.vae, photo[:2], INSTRUCTION, 0).args
    rest = (3.0, 1.5, 0, 1, "euler", "normal", 1.0)
    with pytest.raises(BadImageSize, match="they must be equal"):
        DualCFGSampler.execute(editor.model, *conds, {"samples": source["samples"][..., :-4]}, *rest)
    with pytest.raises(BadInstruction, match="1 latents for 2 conditioned images"):
        DualCFGSampler.execute(editor.model, *conds, {"samples": source["samples"][:1]}, *rest)


def test_the_relevance_map_lies_over_the_latent(editor, photo):
    from ip2p.nodes.edit import DualCFGSampler, InstructConditioning

    *conds, source = InstructConditioning.execute(editor.clip, editor.vae, photo[:2], INSTRUCTION, 0).args
    rest = (0, 3, "euler", "normal", 1.0)
    _, relevance = DualCFGSampler.execute(editor.model, *conds, source, 5.0, 1.5, *rest).args
    assert relevance.shape == (2, *source["samples"].shape[-2:])
    assert 0 <= relevance.min() < relevance.max() <= 1
    _, empty = DualCFGSampler.execute(editor.model, *conds, source, 0.0, 1.5, *rest).args
    assert empty.shape == relevance.shape
    assert not empty.any()


def test_the_negative_instruction_fills_image_and_uncond(editor, photo):
    from ip2p.nodes import edit_steps

    plain = edit_steps.condition(editor.clip, editor.vae, photo[:1], INSTRUCTION)
    negative = edit_steps.condition(editor.clip, editor.vae, photo[:1], INSTRUCTION, "blurry")
    assert torch.equal(plain.full[0][0], negative.full[0][0])
    for role in ("image", "uncond"):
        assert not torch.equal(getattr(plain, role)[0][0], getattr(negative, role)[0][0])
    assert torch.equal(negative.image[0][0], negative.uncond[0][0])
    assert {c[0][0].shape[1] for c in (plain.full, plain.image, plain.uncond)} == {77}


def test_nan_latents_are_named_not_shown_as_a_black_picture(editor, photo):
    from ip2p.nodes.edit import InstructDecode

    latent = {"samples": torch.full((1, 4, 12, 16), float("nan"))}
    with pytest.raises(NonFiniteLatents, match="contain NaN or infinity"):
        InstructDecode.execute(editor.vae, latent, photo[:1])


def test_a_model_that_overflows_is_named(editor, photo):
    broken = editor.model.clone()
    broken.set_model_unet_function_wrapper(
        lambda apply, args: apply(args["input"], args["timestep"], **args["c"]) * float("inf")
    )
    with pytest.raises(NonFiniteLatents, match='the sampler "euler"'):
        edit(editor._replace(model=broken), photo[:1], sampler_name="euler")


def test_interrupting_ends_the_run(editor, photo):
    import comfy.model_management as management

    calls = []
    watched = editor.model.clone()

    def interrupt_after_two(apply, args):
        calls.append(1)
        if len(calls) == 2:
            management.interrupt_current_processing()
        return apply(args["input"], args["timestep"], **args["c"])

    watched.set_model_unet_function_wrapper(interrupt_after_two)
    with pytest.raises(management.InterruptProcessingException):
        edit(editor._replace(model=watched), photo[:1], steps=50)
    management.interrupt_current_processing(False)
    assert len(calls) <= 3
    edit(editor, photo[:1], steps=1)
