"""Files that are not what is asked for, known by their first bytes or their name: pointers, web pages, DICOM."""

HEAD_SIZE = 512  # bytes that `describe_foreign_file` needs

_SIGNATURES = (
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file itself; fetch it with `git lfs pull`"),
    (b"version https://hawser", "a pointer of Git LFS instead of the file itself; fetch it with `git lfs pull`"),
    (b"/annex/objects", "a pointer of git-annex instead of the file itself; fetch it with `git annex get`"),
    (b"\x1f\x8b", "a gzip archive; extract it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; extract it first"),
    (b"Rar!", "a RAR archive; extract it first"),
    (b"%PDF", "a PDF document"),
)
_RAW = "a raw camera file; develop it to JPEG or 16-bit TIFF, such as with rawpy or darktable"
_DICOM = "a DICOM file; write its slices as 16-bit PNG, with pydicom, and read them with --value-range"
_NIFTI = "a NIfTI volume; write its slices as 16-bit PNG, with nibabel, and read them with --value-range"
_HDF5 = "an HDF5 file (also MATLAB's since 7.3); write its images as files, with h5py"
_FITS = "a FITS file; write its images as 16-bit TIFF, with astropy"
_EXR = "an OpenEXR image; write it as 16-bit TIFF, with OpenEXR"
_VIDEO = "a video; write some of its frames as images, such as with ffmpeg, and keep them together by a column group"
_ARCHIVE = "an archive; extract it first"
_SLIDE = "a microscope's file; write its images as TIFF, with bioio or OpenSlide"
_IMAGE_SIGNATURES = (  # at a number of bytes
    (128, b"DICM", _DICOM),
    (344, b"n+1\0", _NIFTI),
    (344, b"ni1\0", _NIFTI),
    (0, b"\x89HDF", _HDF5),
    (0, b"SIMPLE  =", _FITS),
    (0, b"\x93NUMPY", "a NumPy array; load it, and give vpt.tune (images, labels)"),
    (0, b"8BPS", "a Photoshop document; export it as PNG"),
    (0, b"\x76\x2f\x31\x01", _EXR),
    (0, b"ZISRAWFILE", _SLIDE),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image; write it as PNG, with djxl"),
    (0, b"\xff\x0a", "a JPEG XL image; write it as PNG, with djxl"),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"IIRO", _RAW),
    (0, b"IIU\0", _RAW),
    (4, b"ftypcrx ", _RAW),
)
_NAME_ENDINGS = {
    (".dcm", ".dicom"): _DICOM,
    (".nii", ".nii.gz"): _NIFTI,
    (".h5", ".hdf5", ".mat"): _HDF5,
    (".fits", ".fit"): _FITS,
    (".exr",): _EXR,
    (".npy", ".npz"): "a NumPy array; write its images, and masks of one number a pixel, as PNG",
    (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"): _VIDEO,
    (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar"): _ARCHIVE,
    (".pdf",): "a PDF document; write its pages as images, such as with pdftoppm",
    (".czi", ".nd2", ".lif", ".svs", ".ndpi", ".mrxs"): _SLIDE,
    (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"): _RAW,
}
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<script")


def describe_foreign_file(head: bytes) -> str | None:
    """Return what a file is instead of weights or an image, and what to do.

    Args:
        head: The first bytes of the file, up to `HEAD_SIZE`.

    Returns:
        The description, or None if the bytes are none of the known kinds.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGE_STARTS):
        return "a web page instead of the file, such as an error or a login page; download the file itself"
    kinds = (kind for start, signature, kind in _IMAGE_SIGNATURES if head.startswith(signature, start))
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None) or next(kinds, None)


def describe_foreign_name(name: str) -> str | None:
    """Return what a file with images is by its name, if it is of a kind that is not read, and what to do.

    Args:
        name: Name of the file.

    Returns:
        The description, or None for other names.
    """
    plain = name.casefold()
    return next((kind for endings, kind in _NAME_ENDINGS.items() if plain.endswith(endings)), None)
