"""The published table of Araujo, Norris, Sim (Distill 2019), read from JAX, endpoint by endpoint.

RECEPTIVE_FIELD_TABLE.md of github.com/google-research/receptive_field, made with TensorFlow from
the networks of TF-Slim: tests/slim.py has them in JAX.
"""

import jax
import jax.numpy as jnp
import pytest
import slim

from erftheory import from_jax, receptive_field, zoo

# endpoint, field, effective stride, effective padding for images of 224 and of 321 pixels
TABLE = {
    "alexnet_v2": """
        conv1 11 4 0 0, pool1 19 8 0 0, conv2 51 8 16 16, conv3 99 16 32 32, conv5 163 16 64 64,
        pool5 195 32 64 64""",
    "vgg_a": """
        pool1 4 2 1 1, pool2 10 4 3 3, pool3 30 8 11 11, pool4 70 16 27 27, pool5 150 32 59 59""",
    "vgg_16": """
        pool1 6 2 2 2, pool2 16 4 6 6, pool3 44 8 18 18, pool4 100 16 42 42, pool5 212 32 90 90""",
    "mobilenet_v1": """
        0 3 2 0 1, 1 7 2 2 3, 2 11 4 2 5, 3 19 4 6 9, 4 27 8 6 13, 5 43 8 14 21, 6 59 16 14 29,
        7 91 16 30 45, 8 123 16 46 61, 9 155 16 62 77, 10 187 16 78 93, 11 219 16 94 109,
        12 251 32 94 125, 13 315 32 126 157""",
    "mobilenet_v1_075": """
        0 3 2 0 1, 1 7 2 2 3, 2 11 4 2 5, 3 19 4 6 9, 4 27 8 6 13, 5 43 8 14 21, 6 59 16 14 29,
        7 91 16 30 45, 8 123 16 46 61, 9 155 16 62 77, 10 187 16 78 93, 11 219 16 94 109,
        12 251 32 94 125, 13 315 32 126 157""",
    "resnet_v1_50": """
        block1 35 8 15 17, block2 99 16 47 49, block3 291 32 143 145, block4 483 32 239 241""",
    "resnet_v1_101": """
        block1 35 8 15 17, block2 99 16 47 49, block3 835 32 415 417, block4 1027 32 511 513""",
    "resnet_v1_152": """
        block1 35 8 15 17, block2 163 16 79 81, block3 1315 32 655 657, block4 1507 32 751 753""",
    "resnet_v1_200": """
        block1 35 8 15 17, block2 419 16 207 209, block3 1571 32 783 785, block4 1763 32 879 881""",
    "inception_v2": """
        Conv2d_1a_7x7 7 2 2 3, MaxPool_2a_3x3 11 4 2 5, MaxPool_3a_3x3 27 8 6 13,
        Mixed_3b 59 8 22 29, Mixed_3c 91 8 38 45, Mixed_4a 123 16 46 61, Mixed_4b 187 16 78 93,
        Mixed_4c 251 16 110 125, Mixed_4d 315 16 142 157, Mixed_4e 379 16 174 189,
        Mixed_5a 443 32 190 221, Mixed_5b 571 32 254 285, Mixed_5c 699 32 318 349""",
    "inception_v3": """
        Conv2d_1a_3x3 3 2 0 0, MaxPool_3a_3x3 15 4 2 2, MaxPool_5a_3x3 31 8 2 2,
        Mixed_5b 63 8 18 18, Mixed_5c 95 8 34 34, Mixed_5d 127 8 50 50, Mixed_6a 159 16 58 58,
        Mixed_6b 351 16 154 154, Mixed_6c 543 16 250 250, Mixed_6d 735 16 346 346,
        Mixed_6e 927 16 442 442, Mixed_7a 1055 32 490 490, Mixed_7b 1183 32 554 554,
        Mixed_7c 1311 32 618 618""",
    "inception_v4": """
        Conv2d_1a_3x3 3 2 0 0, Mixed_3a 15 4 2 2, Mixed_4a 47 4 14 14, Mixed_5a 55 8 14 14,
        Mixed_5b 87 8 30 30, Mixed_5c 119 8 46 46, Mixed_5d 151 8 62 62, Mixed_5e 183 8 78 78,
        Mixed_6a 215 16 86 86, Mixed_6b 407 16 182 182, Mixed_6c 599 16 278 278,
        Mixed_6d 791 16 374 374, Mixed_6e 983 16 470 470, Mixed_6f 1175 16 566 566,
        Mixed_6g 1367 16 662 662, Mixed_6h 1559 16 758 758, Mixed_7a 1687 32 806 806,
        Mixed_7b 1815 32 870 870, Mixed_7c 1943 32 934 934, Mixed_7d 2071 32 998 998""",
    "inception_resnet_v2": """
        Conv2d_1a_3x3 3 2 0 0, MaxPool_3a_3x3 15 4 2 2, MaxPool_5a_3x3 31 8 2 2,
        Mixed_5b 63 8 18 18, Mixed_6a 415 16 186 186, PreAuxLogits 2335 16 1146 1146,
        Mixed_7a 2399 32 1162 1162, Conv2d_7b_1x1 3039 32 1482 1482""",
    "inception_resnet_v2-same": """
        Conv2d_1a_3x3 3 2 0 1, MaxPool_3a_3x3 15 4 4 7, MaxPool_5a_3x3 31 8 8 15,
        Mixed_5b 63 8 24 31, Mixed_6a 415 16 192 207, PreAuxLogits 2335 16 1152 1167,
        Mixed_7a 2399 32 1168 1199, Conv2d_7b_1x1 3039 32 1488 1519""",
}  # fmt: skip


def rows(name):
    for row in TABLE[name].split(","):
        endpoint, *numbers = row.split()
        yield endpoint, *map(int, numbers)


def padded_alike(name):
    return all(even == odd for *_, even, odd in rows(name))


CASES = [(name, image) for name in TABLE for image in (224, 321)
         if image == 224 or not padded_alike(name)]  # fmt: skip


@pytest.mark.parametrize("name, image", CASES)
def test_imported(name, image):
    example = jax.ShapeDtypeStruct((1, image, image, 3), jnp.float32)
    network = from_jax(slim.NETWORKS[name], example, spatial_axes=(1, 2))
    found, expected = {}, {}
    for endpoint, size, stride, even, odd in rows(name):
        field = receptive_field(network, output=endpoint)
        assert field.aligned  # their tool refuses networks that are not
        found[endpoint] = field.size, field.stride, field.padding
        padding = even if image == 224 else odd
        expected[endpoint] = (size,) * 2, (stride,) * 2, (padding,) * 2
    assert found == expected
    assert set(network.outputs) == set(found)


ZOO = {
    "alexnet_v2": (zoo.alexnet, {}, None),  # torchvision pads the first layer by two
    "vgg_a": (zoo.vgg11, {}, 59),
    "vgg_16": (zoo.vgg16, {}, 90),
    "mobilenet_v1": (zoo.mobilenet_v1, {}, 157),  # pads both sides, as "SAME" of odd maps does
    "resnet_v1_50": (zoo.resnet50, {"stride": "1x1"}, None),
    "resnet_v1_101": (zoo.resnet101, {"stride": "1x1"}, None),
    "resnet_v1_152": (zoo.resnet152, {"stride": "1x1"}, None),
    "inception_v3": (zoo.inception_v3, {}, 618),
}


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name):
    make, variant, padding = ZOO[name]
    *_, (_, size, stride, even, odd) = rows(name)
    field = receptive_field(make(**variant))
    assert (field.size, field.stride) == ((size,) * 2, (stride,) * 2)
    if padding is not None:
        assert padding in (even, odd) and field.padding == (padding,) * 2
