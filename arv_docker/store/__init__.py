# SPDX-License-Identifier: Apache-2.0
"""Images, tarballs and records of layers that are kept on this machine between runs."""
