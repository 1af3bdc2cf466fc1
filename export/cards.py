"""Model cards: what a model does, what it was trained on, its figures, its limits. Written at conversion."""

from __future__ import annotations

from typing import Any

from edge.tasks.identity import side_of_crop

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

ATTRIBUTES = """# attributes: how a mask is worn, and a guess at gender

One small network ({parameters:,} parameters, {macs:.0f} million multiply-accumulates) looks at a face that
was aligned by its five landmarks and says three things: how a mask is worn (`none`; `chin`: worn, mouth and
nose bare; `nose_out`: mouth covered, nose bare; `correct`), whether the person looks `female` or `male`, and
whether this is a face at all. Gender and state together are the 8-class answer.

- **Input**: 1 x {size} x {size} x 3 uint8 RGB, cut by `edge.geometry.align` with the template of the manifest
  (the eyes a quarter of the crop apart, the chin and a mask below it in view). Normalisation is inside.
- **Output**: logits `mask` (1 x 4: none, chin, nose_out, correct), `gender` (1 x 2: female, male), `face`
  (1 x 1), float32. Temperatures are folded into the last layers: softmax and sigmoid give calibrated
  probabilities.
- **Use**: of a photo run it on the face and on its mirror image and take the mean of the logits, as
  `edge.tasks.attributes` does and as all figures below are measured; the loop shows it every second view of a
  face mirrored.
- **Default**: {default}, {default_reason}.

## Gender is a guess by appearance

Two classes, because the training labels have two. They were given by strangers who looked at pictures; they
are not what the people would say of themselves. The model repeats what those strangers would have said, with
the errors below, which differ between groups of people.

**Do not use it** to decide anything about a person: access, price, service, advertising shown to one
person, hiring, policing; to address people; for people who have not been told; for children; or anywhere a
wrong guess hurts. Many places should not collect it at all: `--tasks mask` neither reads nor stores nor shows
it. It never takes part in an unlock decision.

## Figures

{table}

"Worn wrongly" is nose bare or mask on the chin. Held out: a seventh of ilc and of maskon, fairface_dev, lfw;
masks on the last two are painted: {painted_with}. More, with pictures, in
[the report](../benchmarks/results/attributes_report.md).

{yardsticks}

### Gender, bare faces, by race, gender and age (fairface_dev)

{groups}

With painted masks:

{groups_painted}

### Unknown

The state or label is null where the score is below the threshold, the face too small or too blurred:

{thresholds}

{answers}

### Not a face

{rejection}

## Precisions

| precision | bytes | main figure | lost against Keras | cosine of mask, gender, face | oldest TFLite |
|---|---|---|---|---|---|
{precisions}

Main figure: {metric}.

## Training data

{training_data}

The trainer paints masks of many designs in three positions on bare faces, and hands, scarves, collars and
things over the mouth, which are no mask (`none`).

## Licence

{licence}.

## Limits

- Thresholds and temperatures were set on half of the same held-out faces: the figures are a little kind.
- Most masks with `chin` and `nose_out` that it saw were painted; real ones were some hundred.
- A mask with a mouth printed on it, a veil, a beard under a mask, a face turned beyond three quarters: expect
  errors. A scarf over the nose is `none`, and so it should be said to visitors.
- A correct mask is not a safe mask: it sees where the cloth is, not what it is.
- Age bands and groups of few faces have wide intervals; the report gives n for each.
"""


def _facts(entry: dict[str, Any]) -> dict[str, Any]:
    """What every card says of its manifest entry."""
    first = entry["files"][entry["default"]]
    return {
        "parameters": first["parameters"],
        "macs": first["macs"] / 1e6,
        "default": entry["default"],
        "default_reason": entry["default_reason"],
        "training_data": "\n".join(f"- {line}" for line in entry["training_data"]),
        "licence": entry["licence"],
    }


def attributes(entry: dict[str, Any], result: dict[str, Any], report: Any) -> str:
    """The card of the attributes model.

    Args:
        entry: its manifest entry.
        result: of `export.evaluate_attributes.evaluate`.
        report: the module that lays out its tables.
    """
    files = entry["files"]
    first = files[entry["default"]]
    rows = []
    for precision, file in files.items():
        parity = file["parity"]
        cosines = ", ".join(f"{parity['outputs'][k]['cosine']:.5f}" for k in ("mask", "gender", "face"))
        rows.append(
            f"| {precision} | {file['bytes']:,} | {parity['value']:.4f} | {parity['drop']:+.4f} "
            f"| {cosines} | {file['min_runtime']} |"
        )
    limits = entry["thresholds"]
    return ATTRIBUTES.format(
        **_facts(entry),
        size=entry["input"]["width"],
        table=report.table(result),
        painted_with=result["painted_with"],
        yardsticks=report.yardsticks(result),
        groups=report.groups(result["groups"]),
        groups_painted=report.groups(result["groups_painted"]),
        thresholds="\n".join(f"- `{k}` {v['value']}: {v['figure']}." for k, v in limits.items()),
        answers=report.answers(result),
        rejection=report.rejection(result),
        precisions="\n".join(rows),
        metric=first["parity"]["metric"],
    )


IDENTITY = """# identity: the same person, masked or not

A small network ({parameters:,} parameters, {macs:.0f} million multiply-accumulates) turns an aligned face
into {dimensions} numbers of length 1. The cosine between two such embeddings tells how likely they are one
person's, whether the faces are bare or masked. It was taught by two networks for bare faces to give the
masked face what they give the bare one, also of faces that nobody has: blended, composed and warped ones.

- **Input**: 1 x {size} x {size} x 3 uint8 RGB, cut by `edge.geometry.align` with the template of the
  manifest. Normalisation is inside.
- **Output**: `embedding` (1 x {dimensions}, float32, length 1) and `quality` (1 x 1, float32), a logit: its
  sigmoid is the cosine to be expected with the same face seen bare and clear, before the embeddings are
  whitened, which happens in the last layer. Compare it with a threshold, not with a cosine.
- **Use**: cut the face {cut} px large, run the model on that reduced to {size} px and on the middle {size} px
  mirrored, and add the embeddings, as `edge.tasks.identity` does: all figures below are of that.
- **Default**: {default}, {default_reason}.

## Figures

{table}

Masks are painted on the second face of a pair, or on both: {painted_with}. A template is made of the bare
first face, and the same in a mask of our own painter, as `edge.unlock.enrol` makes it. More in
[the report](../benchmarks/results/identity_report.md).

### Thresholds

Every threshold comes with its false accepts, measured on lfw, every face against every other:

{thresholds}

### Quality

{quality}

## Precisions

| precision | bytes | accuracy bare - masked | lost against Keras | cosine of embeddings | oldest TFLite |
|---|---|---|---|---|---|
{precisions}

## Training data

{training_data}

## Licence

{licence}.

## Limits

- lfw shows mostly adults, men and public figures, in good light: expect more false accepts among people who
  look alike in ways it does not hold (families, children, one ethnic group). Twins are accepted.
- Thresholds were set on the same lfw faces that the figures are about.
- It tells who somebody looks like, not whether somebody is there: a photograph passes. See the threat model.
- Gender, mask state and completed faces never enter a decision that is taken with it.
"""


def identity(entry: dict[str, Any], result: dict[str, Any]) -> str:
    """The card of the identity model.

    Args:
        entry: its manifest entry.
        result: of `export.evaluate_identity.evaluate`.
    """
    from export import evaluate_identity as scores

    files = entry["files"]
    rows = [
        f"| {precision} | {file['bytes']:,} | {file['parity']['value']:.4f} | {file['parity']['drop']:+.4f} "
        f"| {file['parity']['outputs']['embedding']['cosine']:.5f} | {file['min_runtime']} |"
        for precision, file in files.items()
    ]
    return IDENTITY.format(
        **_facts(entry),
        dimensions=entry["outputs"][0]["shape"][1],
        size=entry["input"]["width"],
        cut=side_of_crop(entry["input"]["width"]),
        table=scores.table(result),
        painted_with=result["painted_with"],
        thresholds=scores.thresholds_table(result),
        quality=scores.quality_table(result),
        precisions="\n".join(rows),
    )


UNMASK = """# unmask: what may be behind a mask

One graph of {parameters:,} parameters and {macs:.0f} million multiply-accumulates does two things: it
segments the mask on an aligned face, and completes what the mask covers. What it paints is **plausible, not
true**: the likeliest lower face for such an upper face, and no picture of the person's.

- **Input**: 1 x {size} x {size} x 3 uint8 RGB, cut by `edge.geometry.align` with the template of the
  manifest. Normalisation is inside. (int16x8 takes the same pixels as float32.)
- **Output**, told apart by shape: `completed`, 1 x {size} x {size} x 3 float32, RGB 0..255; and `map`,
  1 x {size} x {size} x 1 float32, 0..1, how much of a pixel the mask covers. Where the map is 0 the graph
  copies the input; where it is a half and more only the completed face is seen.
- **Default**: {default}: {default_reason}.

## Figures

{table}

On {n} faces of people who were never trained on, every mask worn correctly, painted with
{painted_with}. The model goes by its own map, `cv2.inpaint` is given the true region. More, with pictures of
what it does and of where it fails, in [the report](../benchmarks/results/unmask_report.md).

{pictures}

![Where it fails](../benchmarks/results/unmask_report_failures.png)

Blurred, dark, turned, squeezed as if seen from the side, with a hand before the mask, with a mask on the chin
(the astronaut Eileen Collins, NASA; drawn masks).

## Precisions

| precision | bytes | hidden region, dB | lost, dB | ms, one thread | cosine of map | oldest TFLite |
|---|---|---|---|---|---|---|
{precisions}

In int8 no layer breaks: what the encoder saw, the map and what was completed so far are added, not stacked,
so that each has a scale of its own; activations end at 6; and the picture is copied past all layers. Weights
with more of the discriminators' detail lost 0.14 dB, and noses turned red; these lose little: take int8 where
2 ms count. The attention errs most by far, by 14 steps of its output, but that is not it: with its products
and its softmax kept in floats the hidden region gained 0.003 dB, in three times the time (version 1.1.0,
n 128). Next come the first and the last layer, by 0.4 steps, the last one's being 1.2 grey values. int16x8
runs on kernels that nobody has made fast.

## Training data

{training_data}

## Licence

{licence}.

## Limits

- It invents: moles, scars, beards, teeth, make-up and expressions behind a mask cannot be known. It draws
  towards what is common in its data, which are faces of celebrities and of the web, mostly adults.
- Identity is not recovered. Completed faces are no evidence of anything, must not be searched for in any
  database, and never enter unlocking.
- Every picture that leaves the program should say that it is a reconstruction, and by default does.
- Hands, scarves and things before the mouth were not trained on; faces turned far, masks on the chin and
  faces of few pixels come out badly.
"""


def unmask(entry: dict[str, Any], result: dict[str, Any]) -> str:
    """The card of the unmask model.

    Args:
        entry: its manifest entry.
        result: of `export.evaluate_unmask.evaluate`.
    """
    from export.evaluate_unmask import pictures_table, table

    files = entry["files"]
    rows = [
        f"| {precision} | {file['bytes']:,} | {file['parity']['value']:.2f} | {file['parity']['drop']:+.3f} "
        f"| {file['ms']:.1f} | {file['parity']['outputs']['map']['cosine']:.5f} | {file['min_runtime']} |"
        for precision, file in files.items()
    ]
    return UNMASK.format(
        **_facts(entry),
        size=entry["input"]["width"],
        table=table(result),
        n=result["n"],
        painted_with=result["painted_with"],
        pictures=pictures_table(result["pictures"]),
        precisions="\n".join(rows),
    )


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
            f"| {precision} | {file['bytes']:,} | {parity['value']:.4f} | {parity['drop']:+.4f} "
            f"| {cosines} | {file['min_runtime']} |"
        )
    return FACE.format(
        **_facts(entry),
        width=entry["input"]["width"],
        height=entry["input"]["height"],
        threshold=entry["thresholds"]["score"]["value"],
        threshold_figure=entry["thresholds"]["score"]["figure"],
        table=table(result),
        precisions="\n".join(rows),
        smallest=result["smallest_px"],
    )
