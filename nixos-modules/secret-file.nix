# An option that names a file with a secret.
{ lib }:
{
  example,
  description,
}:
lib.mkOption {
  type = lib.types.nullOr lib.types.externalPath;
  default = null;
  inherit example;
  description = ''
    ${description} systemd hands it over as a credential when the service starts; it may belong to
    root alone, and does not get into the Nix store.
  '';
}
