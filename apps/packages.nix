# The one distribution as Nix packages, from nixpkgs alone: what a package needs is what the extras
# in pyproject.toml name, so that there is no second list to keep.
pkgs:
let
  inherit (pkgs) lib python3Packages;
  inherit (lib.importTOML ../pyproject.toml) project;

  # "uvloop>=0.22,<1; sys_platform != 'win32'" is the attribute uvloop.
  nameOf = requirement: lib.head (builtins.match "([A-Za-z0-9-]+).*" requirement);
  packagesOf = map (requirement: python3Packages.${nameOf requirement});
  extra = name: packagesOf project.optional-dependencies.${name};

  # A build has no network to fetch the real model with.
  needTheModel = map (file: lib.removePrefix "${toString ../.}/" (toString file)) (
    lib.filter (
      file: lib.hasSuffix ".py" (toString file) && lib.hasInfix "demo_model" (builtins.readFile file)
    ) (lib.filesystem.listFilesRecursive ../tests/apps)
  );

  library =
    {
      pname,
      description,
      dependencies ? [ ],
      tests,
      platforms ? lib.platforms.linux,
    }:
    python3Packages.buildPythonPackage {
      inherit pname;
      inherit (project) version;
      pyproject = true;
      src = lib.fileset.toSource {
        root = ../.;
        fileset = lib.fileset.unions [
          ../pyproject.toml
          ../README.md
          ../LICENSE
          ../apps
          ../libs
          ../tests
        ];
      };
      build-system = [ python3Packages.hatchling ];
      dependencies = packagesOf project.dependencies ++ dependencies;
      # The commands come from the packages below.
      postInstall = "rm -r $out/bin";

      nativeCheckInputs =
        with python3Packages;
        [
          h11
          hypothesis
          jinja2
          llguidance
          openai
          pytest-asyncio
          pytestCheckHook
          tokenizers
        ]
        ++ extra "gateway"
        ++ extra "neuron"
        ++ extra "simulation";
      enabledTestPaths = tests;
      disabledTestPaths = needTheModel;
      # Warnings about other versions than the locked ones are no errors here.
      pytestFlags = [ "-Wdefault" ];
      pythonImportsCheck = [ "cortex_router" ];

      meta = {
        inherit description platforms;
        license = lib.licenses.gpl3Plus;
      };
    };

  # Commands in an interpreter of their own: the daemons start others with it, by module.
  commands =
    {
      pname,
      description,
      modules,
      programs ? [ ],
      cudaSupport ? false,
      ...
    }@arguments:
    let
      python = python3Packages.python.withPackages (_: [
        (library (
          removeAttrs arguments [
            "cudaSupport"
            "modules"
            "programs"
          ]
        ))
      ]);
      wrap = name: module: ''
        makeWrapper ${python}/bin/python $out/bin/${name} --add-flags "-P -m ${module}" \
          --suffix PATH : ${lib.makeBinPath programs}
      '';
    in
    pkgs.runCommand "${pname}-${project.version}" {
      inherit pname;
      inherit (project) version;
      nativeBuildInputs = [ pkgs.makeWrapper ];
      passthru = { inherit cudaSupport python; };
      meta = {
        inherit description;
        license = lib.licenses.gpl3Plus;
        platforms = lib.platforms.linux;
        mainProgram = lib.head (lib.attrNames modules);
      };
    } (lib.concatStrings (lib.mapAttrsToList wrap modules));

  gateway = {
    modules.cortex = "cortex_gateway";
    dependencies = extra "gateway";
    tests = [ "tests/apps/cortex_gateway" ];
  };
  node = {
    modules.neuron = "cortex_neuron";
    # pip fetches the small model of `cortex up`.
    dependencies = extra "neuron" ++ [ python3Packages.pip ];
    tests = [ "tests/apps/cortex_neuron" ];
    programs = [ pkgs.llama-cpp ];
  };
in
{
  cortex = commands (
    gateway
    // {
      pname = "cortex";
      inherit (project) description;
    }
  );

  neuron = commands (
    node
    // {
      pname = "neuron";
      description = "The daemon of a machine that runs models";
    }
  );

  # Both together, for `cortex up`.
  cortex-up = commands (
    node
    // {
      pname = "cortex-up";
      description = "Everything on one machine, to try it";
      modules = gateway.modules // node.modules;
      dependencies = gateway.dependencies ++ node.dependencies;
      tests = [ "tests/libs" ];
    }
  );

  # The pure libraries, for programs of your own.
  cortex-router = library {
    pname = "cortex-router";
    description = "Where a request runs, as a pure function: placement, routing, eviction";
    tests = [
      "tests/libs/cortex_router"
      "tests/libs/cortex_dialects"
    ];
    platforms = lib.platforms.unix;
  };
}
// lib.optionalAttrs (pkgs.config.cudaSupport or false) {
  # exllamav2 is marked broken in a nixpkgs without config.cudaSupport.
  neuron-cuda = commands (
    node
    // {
      pname = "neuron-cuda";
      description = "The daemon of a machine that runs models, for NVIDIA GPUs";
      dependencies = node.dependencies ++ extra "exllamav2";
      programs = [ (pkgs.llama-cpp.override { cudaSupport = true; }) ];
      cudaSupport = true;
    }
  );
}
