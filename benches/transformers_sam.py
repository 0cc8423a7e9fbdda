"""The tiny SAM as a `transformers` model, with the same weights under the names used there."""

import re

from zspl.toyworld import sam as tiny

RENAMED = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"\.norm(\d|_final_attn)", r".layer_norm\1"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"point_embeddings\.", "point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
)


def pipeline():
    """Return a `mask-generation` pipeline with the shipped weights of the tiny SAM."""
    import transformers

    model = transformers.SamModel(_config(transformers)).eval()
    state = {}
    for name, value in tiny.load_sam().state_dict().items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901  one name, step by step
        state[name] = value
    state["shared_image_embedding.positional_embedding"] = state[
        "prompt_encoder.shared_embedding.positional_embedding"
    ]
    model.load_state_dict(state)
    side = tiny.IMAGE_SIZE
    processor = transformers.SamImageProcessor(
        size={"longest_edge": side}, pad_size={"height": side, "width": side}
    )
    return transformers.pipeline("mask-generation", model=model, image_processor=processor)


def _config(transformers):
    side, width = tiny.IMAGE_SIZE, tiny.WIDTH
    vision = transformers.SamVisionConfig(
        hidden_size=width,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=side,
        patch_size=tiny.PATCH_SIZE,
        output_channels=width,
        mlp_dim=4 * width,
        num_pos_feats=width // 2,
        use_rel_pos=False,
        window_size=0,
        global_attn_indexes=[],
        layer_norm_eps=1e-5,
    )
    prompts = transformers.SamPromptEncoderConfig(
        hidden_size=width, image_size=side, patch_size=tiny.PATCH_SIZE, mask_input_channels=16
    )
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=width,
        num_attention_heads=4,
        mlp_dim=2 * width,
        iou_head_hidden_dim=width,
        layer_norm_eps=1e-5,
    )
    return transformers.SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompts.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    )
