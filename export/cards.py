"""Model cards: what a model does, what it was trained on, its figures, its limits. Written at conversion."""

from __future__ import annotations

from typing import Any

FACE = """# face: finds faces, masked and bare

A single-shot, anchor-free detector of {parameters:,} parameters and {macs:.0f} million multiply-accumulates
at {width} x {height}. It finds faces of all sizes, with or without a mask, and five landmarks of each:
right eye, left eye, nose, right and left mouth corner, right and left as the person has them. Where a mask
covers the mouth, those points are a guess.

- **Input**: 1 x {height} x {width} x 3 uint8 RGB, the picture letterboxed to the top left on black.
  Normalisation is inside the graph.
- **Output**: logits (1 x n x 1), boxes (1 x n x 4) and landmarks (1 x n x 10) of n cells of strides 8, 16
  and 32, float32; `edge/tasks/face.py` decodes them: centre `c + s * b[:2]`, size `s * exp(b[2:])`, point
  `c + s * l`.
- **Default**: {default}, {default_reason}.
- **Threshold**: {threshold}, {threshold_figure}.

## Figures

Measured on pictures that training never saw: the held-out seventh of `ilc` (boxes drawn by people), the
held-out half of `empty_rooms`, and face crops of sets that training does not touch. All detectors are given
the same pictures and the same scorer (`python -m export evaluate face`).

{table}

## Precisions

| precision | bytes | AP | AP lost against Keras | cosine of scores, boxes, landmarks | oldest TFLite |
|---|---|---|---|---|---|
{precisions}

## Training data

{training_data}

The trainer adds painted masks, mosaics, faces pasted into rooms, and changes of light, colour, blur and JPEG.

## Licence

{licence}.

## Limits and misuse

- Tuned for faces seen from the front to about three quarters; profiles, faces turned upside down and faces
  under {smallest} px in the model's input are often missed.
- Input size and threshold were chosen on the same held-out pictures, so that the figures are a little kind.
- Landmarks are good enough to align a face seen from the front; on blurred, turned and half-hidden faces
  they are off by a tenth of the distance between the eyes and more, about as much as the teacher's own
  single view.
- It finds faces, it does not know who they are, and a missed face is not proof that nobody is there:
  do not build safety on it.
- The data is what the internet had in 2020: surgical and plain masks are over-represented, so are adults.
  Recall was measured by mask state, not by skin tone or age: measure on your own visitors before you rely
  on it.
- Do not use it to watch people who have not been told, or to count or sort them by what they wear against
  their interest. Tell visitors that a camera looks at them.
"""


def face(entry: dict[str, Any], result: dict[str, Any]) -> str:
    """The card of the face model.

    Args:
        entry: its manifest entry.
        result: of `export.evaluate_face.evaluate`.
    """
    from export.evaluate_face import table

    files = entry["files"]
    rows = []
    for precision, file in files.items():
        parity = file["parity"]
        cosines = ", ".join(f"{parity['outputs'][k]['cosine']:.5f}" for k in ("scores", "boxes", "landmarks"))
        rows.append(
            f"| {precision} | {file['bytes']:,} | {parity['ap']:.4f} | {parity['ap_drop']:+.4f} "
            f"| {cosines} | {file['min_runtime']} |"
        )
    first = files[entry["default"]]
    return FACE.format(
        parameters=first["parameters"],
        macs=first["macs"] / 1e6,
        width=entry["input"]["width"],
        height=entry["input"]["height"],
        default=entry["default"],
        default_reason=entry["default_reason"],
        threshold=entry["thresholds"]["score"]["value"],
        threshold_figure=entry["thresholds"]["score"]["figure"],
        table=table(result),
        precisions="\n".join(rows),
        training_data="\n".join(f"- {line}" for line in entry["training_data"]),
        licence=entry["licence"],
        smallest=result["smallest_px"],
    )
