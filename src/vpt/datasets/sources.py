"""Sources of the benchmark datasets, with terms and citations.

sha256 and size are given if TensorFlow Datasets publishes them.
"""

from __future__ import annotations

from vpt.datasets.download_dir import RemoteFile
from vpt.datasets.layouts.dsprites import FILE as _DSPRITES_FILE
from vpt.datasets.layouts.smallnorb import TEST as _NORB_TEST
from vpt.datasets.layouts.smallnorb import TRAIN as _NORB_TRAIN
from vpt.datasets.task import DataSource

_RESEARCH = "none stated; for research"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_SUN_LISTS = "https://raw.githubusercontent.com/tensorflow/datasets/v4.4.0/tensorflow_datasets/image_classification"

CIFAR = DataSource(
    "cifar-100",
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    (
        RemoteFile(
            "cifar-100-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            168_513_733,
        ),
    ),
    _RESEARCH,
    "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    "take the binary version: the Python version is a pickle, which vpt never opens",
)
CALTECH = DataSource(
    "caltech101",
    "https://data.caltech.edu/records/mzrjq-6wc02",
    (
        RemoteFile(
            "101_ObjectCategories.tar.gz",
            "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            "af6ece2f339791ca20f855943d8b55dd60892c0a25105fcd631ee3d6430f9926",
            131_740_031,
        ),
    ),
    "CC BY 4.0",
    "Fei-Fei et al., Learning Generative Visual Models from Few Training Examples, CVPR Workshop 2004",
    "extract caltech-101.zip by hand: it contains 101_ObjectCategories.tar.gz",
)
DTD = DataSource(
    "dtd",
    f"{_OXFORD}/dtd/",
    (
        RemoteFile(
            "dtd-r1.0.1.tar.gz",
            f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz",
            "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
            625_239_812,
        ),
    ),
    "for research",
    "Cimpoi et al., Describing Textures in the Wild, CVPR 2014",
)
FLOWERS = DataSource(
    "flowers102",
    f"{_OXFORD}/flowers/102/",
    (
        RemoteFile(
            "102flowers.tgz",
            f"{_OXFORD}/flowers/102/102flowers.tgz",
            "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            344_862_509,
        ),
        RemoteFile(
            "imagelabels.mat",
            f"{_OXFORD}/flowers/102/imagelabels.mat",
            "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            502,
        ),
        RemoteFile(
            "setid.mat",
            f"{_OXFORD}/flowers/102/setid.mat",
            "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
            14_989,
        ),
    ),
    _RESEARCH,
    "Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes, ICVGIP 2008",
)
PETS = DataSource(
    "pets",
    f"{_OXFORD}/pets/",
    (
        RemoteFile(
            "images.tar.gz",
            f"{_OXFORD}/pets/data/images.tar.gz",
            "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
            791_918_971,
        ),
        RemoteFile(
            "annotations.tar.gz",
            f"{_OXFORD}/pets/data/annotations.tar.gz",
            "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            19_173_078,
        ),
    ),
    "CC BY-SA 4.0",
    "Parkhi et al., Cats and Dogs, CVPR 2012",
)
SVHN = DataSource(
    "svhn",
    "http://ufldl.stanford.edu/housenumbers/",
    (
        RemoteFile(
            "train_32x32.mat",
            "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
            "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            182_040_794,
        ),
        RemoteFile(
            "test_32x32.mat",
            "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
            "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            64_275_384,
        ),
    ),
    "non-commercial use only",
    "Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, NIPS Workshop 2011",
)
SUN = DataSource(
    "sun397",
    "https://vision.princeton.edu/projects/2010/SUN/",
    (
        RemoteFile(
            "SUN397.tar.gz",
            "https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
            "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
            39_077_296_924,
        ),
        *(
            RemoteFile(f"sun397_tfds_{abbreviation}.txt", f"{_SUN_LISTS}/sun397_tfds_{abbreviation}.txt")
            for abbreviation in ("tr", "va", "te")
        ),
    ),
    _RESEARCH,
    "Xiao et al., SUN Database: Large-scale Scene Recognition from Abbey to Zoo, CVPR 2010",
)
CAMELYON = DataSource(
    "camelyon",
    "https://patchcamelyon.grand-challenge.org/",
    tuple(
        RemoteFile(
            f"camelyonpatch_level_2_split_{name}.h5.gz",
            f"https://zenodo.org/record/2546921/files/camelyonpatch_level_2_split_{name}.h5.gz",
            sha256,
            size,
        )
        for name, sha256, size in (
            ("train_x", "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c", 6_421_353_462),
            ("train_y", "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a", 21_378),
            ("valid_x", "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2", 805_965_320),
            ("valid_y", "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c", 3_038),
            ("test_x", "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245", 800_875_929),
            ("test_y", "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef", 3_040),
        )
    ),
    "CC0 1.0",
    "Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018",
    "requires h5py (extra hdf5)",
)
EUROSAT = DataSource(
    "eurosat",
    "https://github.com/phelber/EuroSAT",
    (
        RemoteFile(
            "EuroSAT.zip",
            "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
            "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
            94_280_567,
        ),
    ),
    "MIT; images contain modified Copernicus Sentinel data",
    "Helber et al., EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover, 2017",
)
RESISC = DataSource(
    "resisc45",
    "https://arxiv.org/abs/1703.00121",
    (RemoteFile("NWPU-RESISC45.rar", "https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs"),),
    _RESEARCH,
    "Cheng et al., Remote Sensing Image Scene Classification: Benchmark and State of the Art, Proc. IEEE 2017",
    "extract the .rar by hand",
)
RETINOPATHY = DataSource(
    "retinopathy",
    "https://www.kaggle.com/c/diabetic-retinopathy-detection/data",
    (
        RemoteFile("train.zip", "https://www.kaggle.com/c/diabetic-retinopathy-detection/data"),
        RemoteFile("test.zip", "https://www.kaggle.com/c/diabetic-retinopathy-detection/data"),
        RemoteFile("trainLabels.csv", "https://www.kaggle.com/c/diabetic-retinopathy-detection/data"),
        RemoteFile(
            "retinopathy_solution.csv",
            "https://storage.googleapis.com/kaggle-forum-message-attachments/90528/2877/retinopathy_solution.csv",
            "a6af3d66804e81887da89b9261bcfb7da4f5bacedb070f1b5db83fa879ab60c9",
            1_181_257,
        ),
    ),
    "rules of the competition: research, no redistribution",
    "Kaggle and EyePACS, Diabetic Retinopathy Detection, 2015",
    "requires an account; join and extract the split archives by hand into train/ and test/, next to trainLabels.csv",
)
CLEVR = DataSource(
    "clevr",
    "https://cs.stanford.edu/people/jcjohns/clevr/",
    (
        RemoteFile(
            "CLEVR_v1.0.zip",
            "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip",
            "5cd61cf1096ed20944df93c9adb31e74d189b8459a94f54ba00090e5c59936d1",
            19_021_600_724,
        ),
    ),
    "CC BY 4.0",
    "Johnson et al., CLEVR: A Diagnostic Dataset for Compositional Language and Elementary Visual Reasoning, CVPR 2017",
)
DMLAB = DataSource(
    "dmlab",
    "https://github.com/google-research/task_adaptation",
    (
        RemoteFile(
            "dmlab.tar.gz",
            "https://storage.googleapis.com/dmlab-vtab/dmlab.tar.gz",
            "638b18fa69a5d61bbc310cd0b87ac603a39f41de0fdb07b6e77de274a24480a4",
            3_017_022_789,
        ),
    ),
    "none stated for the images",
    "Zhai et al., The Visual Task Adaptation Benchmark, 2019",
)
KITTI = DataSource(
    "kitti",
    "https://www.cvlibs.net/datasets/kitti/eval_object.php",
    (
        RemoteFile(
            "data_object_image_2.zip",
            "https://s3.eu-central-1.amazonaws.com/avg-kitti/data_object_image_2.zip",
            "351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617",
            12_569_945_557,
        ),
        RemoteFile(
            "data_object_label_2.zip",
            "https://s3.eu-central-1.amazonaws.com/avg-kitti/data_object_label_2.zip",
            "4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880",
            5_601_213,
        ),
        RemoteFile(
            "devkit_object.zip",
            "https://s3.eu-central-1.amazonaws.com/avg-kitti/devkit_object.zip",
            "cfde67e531832618ea0fd4844f91e34a45068025e2bef79e278cb812dc2537d0",
            63_778,
        ),
    ),
    "CC BY-NC-SA 3.0",
    "Geiger et al., Are We Ready for Autonomous Driving? The KITTI Vision Benchmark Suite, CVPR 2012",
)
DSPRITES = DataSource(
    "dsprites",
    "https://github.com/google-deepmind/dsprites-dataset",
    (RemoteFile(_DSPRITES_FILE, f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{_DSPRITES_FILE}"),),
    "Apache-2.0",
    "Matthey et al., dSprites: Disentanglement testing Sprites dataset, 2017",
)
SMALLNORB = DataSource(
    "smallnorb",
    "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/",
    tuple(
        RemoteFile(f"{name}.mat.gz", f"https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/{name}.mat.gz", sha256, size)
        for name, sha256, size in (
            (f"{_NORB_TRAIN}-dat", "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873", 131_896_188),
            (f"{_NORB_TRAIN}-info", "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32", 71_052),
            (f"{_NORB_TEST}-dat", "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474", 130_799_817),
            (f"{_NORB_TEST}-info", "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2", 10_428),
        )
    ),
    "for research; may not be sold",
    "LeCun et al., Learning Methods for Generic Object Recognition with Invariance to Pose and Lighting, CVPR 2004",
)
