# SPDX-License-Identifier: Apache-2.0
"""
An emulator of Azure Key Vault (keys), Managed HSM, Entra ID and managed identity, for tests.

It answers as the services do, and refuses what they refuse; what it does on request (throttle,
fail, lie) is asked for on a control port. It protects nothing: its keys lie in a directory.
"""
