# Every Nix file is as `nix fmt` would leave it.
{ self, pkgs, ... }:
pkgs.runCommand "format" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
  find ${self} -name '*.nix' -exec nixfmt --check {} +
  touch $out
''
