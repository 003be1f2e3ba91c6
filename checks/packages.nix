# Every package builds, and passes its tests while it does.
{ self, pkgs, ... }: pkgs.linkFarm "packages" self.packages.${pkgs.stdenv.hostPlatform.system}
