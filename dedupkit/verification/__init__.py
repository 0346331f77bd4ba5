"""Whether two images show the same content, and under which map."""

from dedupkit.verification.features import Features, features_of, local_features
from dedupkit.verification.maps import Verification
from dedupkit.verification.pair import verify_pair

__all__ = ["Features", "Verification", "features_of", "local_features", "verify_pair"]
