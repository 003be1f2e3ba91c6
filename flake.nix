{
  description = "One API in front of every GPU you own";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      perSystem = systems: make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      onLinux = perSystem [
        "x86_64-linux"
        "aarch64-linux"
      ];
      onDarwin = perSystem [
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      packages = import ./apps/packages.nix;
      # CUDA is unfree, and slow to evaluate: only for who asks for it.
      withCuda = import nixpkgs {
        system = "x86_64-linux";
        config.allowUnfree = true;
        config.cudaSupport = true;
      };
      machine =
        module:
        lib.nixosSystem {
          system = "x86_64-linux";
          modules = [ self.nixosModules.default ] ++ [ module ];
        };
    in
    {
      packages =
        onLinux (pkgs: packages pkgs // { default = (packages pkgs).cortex; })
        // onDarwin (pkgs: {
          inherit (packages pkgs) cortex-router;
        });
      legacyPackages.x86_64-linux = { inherit (packages withCuda) neuron-cuda; };
      overlays.default = final: _: packages final;

      apps = onLinux (pkgs: rec {
        default = cortex;
        cortex.type = "app";
        cortex.meta.description = "Run everything on this machine, or one of the commands";
        cortex.program = "${pkgs.writeShellScript "cortex" ''
          [ $# -gt 0 ] || set -- up
          exec ${lib.getExe (packages pkgs).cortex-up} "$@"
        ''}";
      });

      devShells = onLinux (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            git
            gnumake
            nix
            nixfmt
            nodejs
            python3
          ];
          # What the wheels in .venv expect to find on any Linux.
          LD_LIBRARY_PATH = lib.makeLibraryPath (with pkgs; [ stdenv.cc.cc.lib ] ++ [ zlib ]);
        };
      });
      formatter = onLinux (pkgs: pkgs.nixfmt-tree);
      checks = onLinux (pkgs: import ./checks { inherit self pkgs; });

      nixosModules = import ./nixos-modules { inherit self lib; };
      nixosConfigurations = lib.mapAttrs (_: machine) (import ./nixos-modules/fleet.nix);
    };
}
