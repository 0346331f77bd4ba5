"""imagededup's functions over this library's engines: its names, its arguments, its return values.

``PHash().find_duplicates(image_dir=...)`` becomes ``find_duplicates(image_dir=..., method="phash")``. With the
64-bit methods (``phash``, ``dhash``, ``ahash``, ``whash``) hashes and duplicates are those of imagededup 0.3.3, bit
for bit: an image is opened as imagededup opens it, without its EXIF orientation, and in the same formats. What differs:

* The default method is ``pdq``: 256 bits, compared in all eight orientations of the image. An image too flat for
  it (PDQ quality below 50) duplicates nothing. A map of hashes does not tell which images are flat, so this holds for
  ``image_dir`` only; ``find_duplicates`` of an ``encoding_map`` compares everything in it.
* Files are taken in the order of their names; imagededup takes them as the file system lists them.
  ``find_duplicates_to_remove`` keeps the first of each duplicate, so here its result is the same on every machine.
* One exact join serves all sizes: ``search_method`` is accepted and ignored, with a warning.
* Comparing runs in threads and hashing in processes; a few dozen files are hashed in the calling process.
* ``plot_duplicates`` with ``outfile`` writes the figure and does not show it.
* Wrong arguments raise ValueError where imagededup has assertions.
"""

from dedupkit.interop.imagededup.duplicates import find_duplicates, find_duplicates_to_remove
from dedupkit.interop.imagededup.encoding import encode_image, encode_images
from dedupkit.interop.imagededup.plot import plot_duplicates

__all__ = ["encode_image", "encode_images", "find_duplicates", "find_duplicates_to_remove", "plot_duplicates"]
