"""Image-to-text models of transformers: a tiny BLIP, Florence-2 and Qwen2-VL write by their own code, drawn by ours."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.teachers.test_from_transformers import word_tokenizer

from pocketclip.teachers import CaptionerSpec, build_captioner

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

NAMES = ["<pad>", "</s>", "<s>", "<unk>", "<|image_pad|>", "<|video_pad|>", "<CAPTION>"]
WORDS = NAMES + [f"word{i}" for i in range(30)]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def blip():
    config = transformers.BlipConfig(
        text_config=SIZES | IDS | {"encoder_hidden_size": 32, "sep_token_id": 1},
        vision_config=SIZES | {"image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    tokenizer = word_tokenizer(["input_ids"], words=WORDS)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    processor = transformers.BlipProcessor(
        transformers.BlipImageProcessor(size={"height": 32, "width": 32}),
        tokenizer,
    )
    return transformers.BlipForConditionalGeneration(config), processor


def qwen():
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2}
    text = SIZES | IDS | {
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    config = transformers.Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=4,
        video_token_id=5,
        vision_start_token_id=3,
        vision_end_token_id=3,
    )
    tokenizer = word_tokenizer(["input_ids", "attention_mask"], words=WORDS)
    tokenizer.add_tokens(["<|image_pad|>", "<|video_pad|>"], special_tokens=True)
    template = (
        "{% for message in messages %}{% for part in message.content %}"
        "{% if part.type == 'image' %}<|image_pad|>{% else %} {{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(
            patch_size=8, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
        ),
        tokenizer,
        transformers.Qwen2VLVideoProcessor(patch_size=8),
        chat_template=template,
    )
    return transformers.Qwen2VLForConditionalGeneration(config), processor


def florence():
    vision = {"depths": (1, 1, 1, 1), "embed_dim": (8, 16, 16, 32), "num_heads": (1, 2, 2, 4)}
    vision |= {"num_groups": (1, 2, 2, 4), "window_size": 4, "projection_dim": 32}
    text = {"model_type": "bart", "d_model": 32, "max_position_embeddings": 64, "decoder_start_token_id": 2}
    for half in ("encoder", "decoder"):
        text |= {f"{half}_layers": 1, f"{half}_attention_heads": 2, f"{half}_ffn_dim": 64}
    config = transformers.Florence2Config(
        text_config=text | IDS | {"forced_eos_token_id": None}, vision_config=vision, image_token_id=4
    )
    tokenizer = word_tokenizer(["input_ids", "attention_mask"], words=WORDS)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.add_tokens(["<|image_pad|>"], special_tokens=True)
    tokenizer._set_model_specific_special_tokens({"image_token": "<|image_pad|>"})
    images = transformers.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5  # 2 x 2 places and their mean
    return transformers.Florence2ForConditionalGeneration(config), transformers.Florence2Processor(
        images, tokenizer
    )


KINDS = {"blip": blip, "qwen": qwen, "florence": florence}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    """A tiny model as transformers writes it."""
    torch.manual_seed(0)
    model, processor = KINDS[request.param]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.4)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def spec(folder, **fields) -> CaptionerSpec:
    defaults = {"name": "vlm", "source": f"transformers:{folder}", "max_length": 6, "num_captions": 3}
    return CaptionerSpec(**(defaults | {"top_p": 1.0, "min_length": 3} | fields))


def pictures(num):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(num)]


KEYS = ["a", "b", "c", "d"]


def test_captions_depend_on_picture_key_and_number_alone(folder):
    captioner = build_captioner(spec(folder))
    together = captioner.caption(pictures(4), KEYS)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    assert captioner.caption(pictures(4)[2:], KEYS[2:]) == together[2:]
    assert torch.equal(torch.get_rng_state(), before)
    assert captioner.caption(pictures(1), ["other"]) != together[:1]
    more = build_captioner(spec(folder, num_captions=5)).caption(pictures(1), KEYS[:1])
    assert more[0][:3] == together[0]
    assert len(set(together)) == 4
    lengths = {len(text.split()) for texts in together for text in texts}
    assert max(lengths) <= 6, together


def test_the_likeliest_words_are_those_of_the_library(folder):
    captioner = build_captioner(spec(folder, temperature=0.0, num_captions=1, no_repeat_ngram=1))
    found = captioner.caption(pictures(2), KEYS[:2])
    inputs = captioner._processor(
        images=pictures(2)[1],
        return_tensors="pt",
        **({"text": captioner._request} if captioner._request else {}),
    )
    tokens = captioner._model.generate(
        **inputs, max_new_tokens=6, min_new_tokens=3, no_repeat_ngram_size=1, do_sample=False
    )
    words = captioner._processor.batch_decode(tokens, skip_special_tokens=True)[0]
    assert words.endswith(found[1][0])
    searched = build_captioner(spec(folder, temperature=0.0, num_captions=2, beams=3, no_repeat_ngram=1))
    assert [len(texts) for texts in searched.caption(pictures(2), KEYS[:2])] == [2, 2]


def test_what_it_is_is_told(folder):
    captioner = build_captioner(spec(folder), precision="bf16")
    described = captioner.describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["library"], described["num_captions"], described["precision"]) == (
        "transformers",
        3,
        "bf16",
    )
    assert captioner.digest == build_captioner(spec(folder, num_captions=1)).digest
    assert len(captioner.caption(pictures(1), KEYS[:1])) == 1


def test_a_model_is_asked_for_a_caption_in_its_own_way_or_in_ours(folder):
    asked = {
        "blip": (None, "a photograph of"),
        "qwen": ("<|image_pad|> Describe this image in one sentence.", "<|image_pad|> a photograph of"),
        "florence": ("<CAPTION>", "a photograph of"),
    }
    kind = next(kind for kind in KINDS if folder.name.startswith(kind))
    ours = build_captioner(spec(folder, request="a photograph of"))
    assert (build_captioner(spec(folder)).describe()["request"], ours.describe()["request"]) == asked[kind]


def test_groups_of_beams_are_refused(folder):
    with pytest.raises(ValueError, match="captioner vlm: transformers searches with one group"):
        build_captioner(spec(folder, temperature=0.0, num_captions=2, beams=4, beam_groups=2))


def test_a_model_that_is_none_is_told(tmp_path):
    with pytest.raises(OSError, match="captioner vlm: transformers:.* cannot be found"):
        build_captioner(spec(tmp_path / "gone"))
    config = transformers.CLIPConfig(text_config=IDS, vision_config={"image_size": 32, "patch_size": 16})
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="captioner vlm: transformers:.* cannot be used"):
        build_captioner(spec(tmp_path))
