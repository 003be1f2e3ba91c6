# A few packages that can be named and never built: what they would hold does not matter here.
{ system, config }:
let
  lib = import ./lib;

  # `inputs`: everything that a real one would be built from, so that all of it is evaluated.
  derivationOf =
    name: inputs: fields:
    derivation {
      inherit inputs name system;
      builder = "/bin/sh";
      args = [
        "-c"
        "echo this is a stand-in, use the real nixpkgs >&2; exit 1"
      ];
    }
    // {
      pname = name;
      version = "0";
      override = _: derivationOf name inputs fields;
      meta.mainProgram = name;
    }
    // fields;
  named = names: lib.genAttrs names (name: derivationOf name [ ] { });
  # By the versions that nixpkgs has (its tree of 2026-07-14): ours must not ask for newer ones.
  versioned = lib.mapAttrs (name: version: derivationOf name [ ] { inherit version; });

  toml =
    let
      value =
        (lib.types.oneOf [
          lib.types.bool
          lib.types.int
          lib.types.float
          lib.types.str
          lib.types.path
          (lib.types.listOf value // { description = "list of TOML values"; })
          (lib.types.attrsOf value // { description = "TOML table"; })
        ])
        // {
          description = "TOML value";
        };
    in
    value;

  python3Packages =
    versioned {
      h11 = "0.16.0";
      hatchling = "1.29.0";
      httptools = "0.7.1";
      httpx = "0.28.1";
      huggingface-hub = "1.10.2";
      hypothesis = "6.151.10";
      jinja2 = "3.1.6";
      llguidance = "1.7.6";
      matplotlib = "3.10.9";
      nvidia-ml-py = "13.610.43";
      openai = "2.41.1";
      orjson = "3.11.7";
      pip = "26.1.2";
      prometheus-client = "0.25.0";
      psutil = "7.2.2";
      pydantic = "2.12.5";
      pytest-asyncio = "1.3.0";
      pytestCheckHook = "";
      rich = "14.3.3";
      sanic = "25.12.0";
      structlog = "25.5.0";
      tokenizers = "0.22.2";
      typer = "0.24.0";
      uvloop = "0.22.1";
    }
    // {
      exllamav2 =
        if config.cudaSupport or false then
          derivationOf "exllamav2" [ ] { version = "0.3.2"; }
        else
          throw "exllamav2 is marked as broken without config.cudaSupport";
      buildPythonPackage =
        package:
        derivationOf package.pname
          (
            package.build-system
            ++ package.dependencies
            ++ package.nativeCheckInputs
            ++ package.enabledTestPaths
            ++ package.disabledTestPaths
            ++ [ package.postInstall ]
          )
          {
            inherit (package) disabledTestPaths meta version;
          };
      python = derivationOf "python3" [ ] {
        withPackages = choose: derivationOf "python3-env" (choose python3Packages) { };
      };
    };

  pkgs =
    named [
      "coreutils"
      "git"
      "gnumake"
      "llama-cpp"
      "makeWrapper"
      "nix"
      "nixfmt"
      "nixfmt-tree"
      "nodejs"
      "python3"
      "systemd"
      "unzip"
      "zlib"
    ]
    // {
      inherit
        config
        lib
        python3Packages
        system
        ;
      path = ./.;
      fetchPypi = file: derivationOf file.pname [ file.hash ] { };
      stdenv = {
        hostPlatform = {
          inherit system;
        };
        buildPlatform = {
          inherit system;
          canExecute = other: other.system == system;
        };
        cc.cc.lib = derivationOf "gcc-lib" [ ] { };
      };
      formats.toml = _: {
        type = toml;
        generate = name: content: builtins.toFile name (builtins.toJSON content);
      };
      linkFarm = name: entries: derivationOf name (lib.attrValues entries) { };
      runCommand =
        name: arguments: script:
        derivationOf name (arguments.nativeBuildInputs or [ ] ++ [ script ]) (
          removeAttrs arguments [
            "nativeBuildInputs"
            "passthru"
          ]
          // arguments.passthru or { }
        );
      writeShellScript = name: text: derivationOf name [ text ] { };
      mkShell = shell: derivationOf "shell" (shell.packages ++ [ shell.LD_LIBRARY_PATH ]) { };
      nixosOptionsDoc =
        { options, ... }:
        {
          optionsCommonMark = derivationOf "options.md" (lib.attrNames options.services) { };
        };
      testers.runNixOSTest =
        test:
        derivationOf "vm-test-run-${test.name}" (lib.attrNames test.nodes ++ [ test.testScript ]) {
          nodes = lib.mapAttrs (
            _: module:
            (import ./nixos/lib/eval-config.nix {
              inherit system;
              modules = [ module ];
            }).config
          ) test.nodes;
        };
    };
in
pkgs
