# SPDX-License-Identifier: Apache-2.0
"""The site over HTTP: the application, the server, TLS, and the Keep protocol."""
